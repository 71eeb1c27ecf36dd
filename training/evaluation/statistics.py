"""The measures of the evaluation, as pure functions.

Legend: N frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Series = NDArray[np.floating[Any]]


def pearson(a: Series, b: Series) -> float:
    """Correlation of two series [N]; 0 if one is constant."""
    x, y = a - np.mean(a), b - np.mean(b)
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale > 1e-12 else 0.0


def mean_psnr(frames_N3HW: Tensor, truth_N3HW: Tensor, weight: Tensor) -> float:
    """PSNR in dB over the weighted pixels of all frames together; values are 0..1."""
    weight = weight.expand(len(truth_N3HW), 1, -1, -1)
    squared = (weight * (frames_N3HW - truth_N3HW).square()).sum() / (3 * weight.sum()).clamp_min(1)
    return float(-10 * torch.log10(squared.clamp_min(1e-10)))


@dataclass(frozen=True, slots=True)
class Sync:
    """Correlation `r` at the best lag; positive lag: the mouth is late by so many frames."""

    r: float
    lag_frames: int


REACH: Final = 8


def lag_correlations(measured: Series, true: Series) -> NDArray[np.float64]:
    """Correlation of the openings [N] with the measured one shifted by -8 .. 8 frames [17]."""
    count = min(len(measured), len(true))
    m, t = measured[:count], true[:count]
    return np.array(
        [
            pearson(m[lag:], t[: count - lag]) if lag >= 0 else pearson(m[:lag], t[-lag:])
            for lag in range(-REACH, REACH + 1)
        ]
    )


def best_lag(correlations: Sequence[NDArray[np.float64]]) -> Sync:
    """Best common lag of several `lag_correlations` and the mean correlation there.

    One lag for all clips: searching it clip by clip would flatter the result.
    """
    means = np.mean(correlations, axis=0)
    best = int(np.argmax(means))
    return Sync(float(means[best]), best - REACH)


def synchrony(pairs: Sequence[tuple[Series, Series]]) -> Sync:
    """`best_lag` of (measured, true) openings."""
    return best_lag([lag_correlations(measured, true) for measured, true in pairs])


def frame_differences(frames_NHWC: NDArray[np.uint8]) -> Series:
    """Mean absolute difference of successive frames [N - 1], in 8-bit levels."""
    small = frames_NHWC.astype(np.int16)
    return np.array([float(np.abs(b - a).mean()) for a, b in zip(small, small[1:], strict=False)])


def boundary_jump_ratio(differences: Series, borders: Sequence[int]) -> float:
    """Mean change across chunk borders over the median change within chunks (3.1, BJR).

    `differences` [N - 1] is the change into frames 1 .. N - 1; `borders` are the indices of the
    frames that begin a chunk, without the first. NaN without borders.
    """
    at_border = np.isin(np.arange(1, len(differences) + 1), borders)
    if not at_border.any():
        return float("nan")
    within = float(np.median(differences[~at_border]))
    return float(differences[at_border].mean()) / max(within, 1e-6)


def sharpness(frames_NHWC: NDArray[np.uint8]) -> Series:
    """Mean absolute Laplacian of every frame's grey values [N]."""
    grey = frames_NHWC.astype(np.float32).mean(axis=3)
    laplacian = (
        4 * grey[:, 1:-1, 1:-1]
        - grey[:, :-2, 1:-1]
        - grey[:, 2:, 1:-1]
        - grey[:, 1:-1, :-2]
        - grey[:, 1:-1, 2:]
    )
    values: Series = np.abs(laplacian).mean(axis=(1, 2))
    return values
