"""Loudness of speech (ITU-R BS.1770-4) and bringing it to a level."""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm  # type: ignore[import-untyped]
from numpy.typing import NDArray

TARGET_LUFS = -23.0
BLOCK_SECONDS = 0.4  # BS.1770's gating block: shorter sound has no loudness
EXTREME_LUFS = 100.0


def loudness_lufs(wave: NDArray[np.floating], rate: int) -> float:
    """Integrated loudness of mono samples in -1..1; -inf for silence and for less than 0.4 s."""
    if len(wave) < BLOCK_SECONDS * rate or not wave.any():
        return -math.inf
    with np.errstate(divide="ignore"):  # blocks of digital silence: log10(0)
        return float(pyloudnorm.Meter(rate).integrated_loudness(np.asarray(wave, np.float64)))


def normalize_loudness(
    wave: NDArray[np.floating], rate: int, target_lufs: float = TARGET_LUFS
) -> NDArray[np.float64]:
    """Scale mono samples to `target_lufs`; silence and very short sound come back unchanged."""
    loudness = loudness_lufs(wave, rate)
    if abs(loudness) > EXTREME_LUFS:
        return np.asarray(wave, np.float64)
    gain = 10.0 ** ((target_lufs - loudness) / 20.0)
    scaled: NDArray[np.float64] = np.asarray(wave, np.float64) * gain
    return scaled
