"""Audio features of the 14B model: every hidden layer of wav2vec 2.0 at the video's frame rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

from visavis.engine.audio.loudness import normalize_loudness
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, FPS
from visavis.engine.tensor_files import Move, TensorFiles, move_tensors

RATE = ENGINE_SAMPLES_PER_FRAME * FPS
VARIANCE_FLOOR = 1e-7  # of Wav2Vec2FeatureExtractor
PRETRAINING_PREFIX = "wav2vec2."  # of the encoder's tensors in a Wav2Vec2ForPreTraining
WEIGHT_NORM = {  # PyTorch's old weight norm, in which the checkpoint is stored
    "encoder.pos_conv_embed.conv.weight_g": (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    ),
    "encoder.pos_conv_embed.conv.weight_v": (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    ),
}


class Wav2VecFeatures:
    """16 kHz sound -> features of each video frame; stateless.

    The whole sound given is normalised, encoded and attended to at once: a stream gives its last
    8 s each time (method section 1.3, step 5).
    """

    def __init__(self, model: Wav2Vec2Model) -> None:
        if model.config.do_stable_layer_norm or model.config.add_adapter:
            raise ValueError(
                "do_stable_layer_norm/add_adapter=True: only wav2vec2-base's plain encoder is "
                "supported; use chinese-wav2vec2-base"
            )
        self.model = model.requires_grad_(False)
        self.model.train(False)

    @classmethod
    def load(
        cls,
        config: Wav2Vec2Config,
        path: Path,
        *,
        device: torch.device | str = "cpu",
    ) -> Wav2VecFeatures:
        """Read a Hugging Face checkpoint (file or folder), strictly, in float32.

        It may be that of a pre-training model, whose other heads are not read.

        Raises:
            CheckpointError: a tensor is missing, surplus or of another shape.
        """
        with torch.device("meta"):
            model = Wav2Vec2Model(config)
        stored_as = {ours: theirs for theirs, ours in WEIGHT_NORM.items()}
        names = [(stored_as.get(name, name), name) for name in model.state_dict()]
        with TensorFiles(path) as files:
            inside = any(name.startswith(PRETRAINING_PREFIX) for name in files.names)
            prefix = PRETRAINING_PREFIX if inside else ""
            moves = [Move(prefix + theirs, ours) for theirs, ours in names]
            heads = {name for name in files.names if not name.startswith(prefix)}
            move_tensors(model, files, moves, dtype=torch.float32, device=device, unused=heads)
        return cls(model)

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, channels) of a frame's features."""
        return self.model.config.num_hidden_layers, self.model.config.hidden_size

    @torch.inference_mode()
    def __call__(self, wave: NDArray[np.floating], num_frames: int | None = None) -> Tensor:
        """float [n] samples in -1..1 -> float32 [num_frames, layers, channels].

        `num_frames` None: those of 25 fps that the sound fills.
        """
        frames = len(wave) // ENGINE_SAMPLES_PER_FRAME if num_frames is None else num_frames
        values = prepare_wave(wave).to(self.model.device)
        return self.encode(self.project(self.resampled(values, frames)))

    def resampled(self, values_1N: Tensor, num_frames: int) -> Tensor:
        """Convolutional features [1, C, ~50 Hz] drawn linearly to [1, num_frames, C]."""
        features = self.model.feature_extractor(values_1N)
        stretched = F.interpolate(features, size=num_frames, mode="linear", align_corners=True)
        return stretched.transpose(1, 2)

    def project(self, features_1FC: Tensor) -> Tensor:
        """Features into the encoder's width, [1, F, hidden]."""
        projected: Tensor = self.model.feature_projection(features_1FC)[0]
        return projected

    def encode(self, hidden_1FC: Tensor) -> Tensor:
        """Outputs of every layer, without the first's input, [F, layers, hidden]."""
        encoder = self.model.encoder
        hidden = encoder.layer_norm(hidden_1FC + encoder.pos_conv_embed(hidden_1FC))
        layers = []
        for layer in encoder.layers:
            hidden = layer(hidden)
            layers.append(hidden[0])
        return torch.stack(layers, dim=1)


def prepare_wave(wave: NDArray[np.floating]) -> Tensor:
    """Loudness to -23 LUFS, then zero mean and unit variance: float32 [1, n]."""
    level = normalize_loudness(wave, RATE).astype(np.float32)
    normal = (level - level.mean()) / np.sqrt(level.var() + VARIANCE_FLOOR)
    return torch.from_numpy(normal.astype(np.float32))[None]
