"""The embedded model's front end: log-mel, and the speech encoder over it."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.audio.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME
from visavis.engine.weights import SPEECH_CONFIG_FILE, SPEECH_FILE, WeightsError, load_weights


class SpeechFrontEnd:
    """`AudioFrontEnd` that hears as much of the past as the encoder reaches back to."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self._encoder = encoder
        self._mel = MelFrontEnd()

    @property
    def past_samples(self) -> int:
        reach = self._encoder.config.reach * ENGINE_SAMPLES_PER_FRAME
        return self._mel.past_samples + reach

    @property
    def feature_shape(self) -> tuple[int, int]:
        return self._encoder.feature_shape

    @torch.inference_mode()
    def features(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = self._mel.features(past, new)
        device = self._encoder.mouth.weight.device
        heard = self._encoder(torch.from_numpy(mel)[None].to(device)).features[0]
        features: NDArray[np.float32] = heard[self._encoder.config.reach :].cpu().numpy()
        return features


def load_speech_encoder(folder: Path, device: torch.device | None = None) -> SpeechEncoder:
    """The folder's speech encoder, frozen, in float32.

    Raises:
        WeightsError: `speech.json` or `speech.safetensors` is missing or does not fit.
    """
    path = folder / SPEECH_CONFIG_FILE
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
        sizes["dilations"] = tuple(sizes["dilations"])
        config = SpeechEncoderConfig(**sizes)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: {error}; restore the file or choose another folder") from error
    encoder = SpeechEncoder(config)
    load_weights(encoder, folder / SPEECH_FILE)
    return encoder.to(device).eval().requires_grad_(False)
