"""The measures of the evaluation, as pure functions.

Legend: N frames, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

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


def synchrony(pairs: list[tuple[Series, Series]], reach: int = 8) -> Sync:
    """Best common lag of (measured, true) openings and the mean correlation there.

    One lag for all clips: searching it clip by clip would flatter the result.
    """
    means = {}
    for lag in range(-reach, reach + 1):
        rs = []
        for measured, true in pairs:
            count = min(len(measured), len(true))
            m, t = measured[:count], true[:count]
            rs.append(
                pearson(m[lag:], t[: count - lag]) if lag >= 0 else pearson(m[:lag], t[-lag:])
            )
        means[lag] = float(np.mean(rs))
    best = max(means, key=lambda lag: means[lag])
    return Sync(means[best], best)


def frame_differences(frames_NHWC: NDArray[np.uint8]) -> Series:
    """Mean absolute difference of successive frames [N - 1], in 8-bit levels."""
    small = frames_NHWC.astype(np.int16)
    return np.array([float(np.abs(b - a).mean()) for a, b in zip(small, small[1:], strict=False)])


def boundary_jump_ratio(frames_NHWC: NDArray[np.uint8], borders: list[int]) -> float:
    """Mean difference across chunk borders over the median difference within chunks (3.1, BJR).

    `borders` are the indices of the frames that begin a chunk, without the first.
    """
    differences = frame_differences(frames_NHWC)
    at_border = np.isin(np.arange(1, len(frames_NHWC)), borders)
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
