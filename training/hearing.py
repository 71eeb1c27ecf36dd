"""What the transformer hears of a chunk in training: exactly what the engine gives it.

Features depend on where a chunk ends, because nothing later is known; so they are made from log-mel
frames for every window that is drawn, with the engine's own encoder.

Legend: B samples, N log-mel frames, F frames of a chunk, W audio window, L layers, C channels.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.audio.mel import SILENCE_LEVEL
from visavis.engine.audio.speech_encoder import SpeechEncoder
from visavis.engine.audio.speech_front_end import load_speech_encoder
from visavis.engine.audio.window import audio_windows


class Hearing:
    """Log-mel -> audio windows. Without an encoder the log-mel itself is the feature."""

    def __init__(self, encoder: SpeechEncoder | None = None) -> None:
        self._encoder = encoder

    @classmethod
    def load(cls, folder: Path) -> "Hearing":
        """With the encoder of a weights folder. Raises WeightsError when there is none."""
        return cls(load_speech_encoder(folder))

    @property
    def lead(self) -> int:
        """Log-mel frames before a chunk's first that its features depend on."""
        reach = 0 if self._encoder is None else self._encoder.config.reach
        return WINDOW_REACH + reach

    def rows(
        self, mel_NLC: NDArray[np.float16] | NDArray[np.float32], start: int, frames: int
    ) -> Tensor:
        """Log-mel of frames start - lead .. start + frames of a clip, silence before its first:
        float32 [lead + frames, 4, 64]."""
        first = start - self.lead
        rows = np.asarray(mel_NLC[max(first, 0) : start + frames], np.float32)
        if first < 0:
            silence = np.full((-first, *rows.shape[1:]), SILENCE_LEVEL, np.float32)
            rows = np.concatenate([silence, rows])
        return torch.from_numpy(rows)

    def chunk(self, mel_BNLC: Tensor, start: int, frames: int) -> Tensor:
        """Audio windows [B, F, 5, L, C] of the chunk start .. start + frames of sequences whose
        log-mel begins `lead` frames before their first."""
        return self.windows(mel_BNLC[:, start : start + self.lead + frames])

    @torch.no_grad()
    def windows(self, mel_BNLC: Tensor) -> Tensor:
        """Audio windows [B, F, 5, L, C] of a chunk from its log-mel and the lead, N = lead + F.

        The chunk's last frame stands for the unknown future.
        """
        features = mel_BNLC if self._encoder is None else self._encoder(mel_BNLC).features
        features = features[:, self.lead - WINDOW_REACH :]
        return torch.stack([audio_windows(sample, start=WINDOW_REACH) for sample in features])
