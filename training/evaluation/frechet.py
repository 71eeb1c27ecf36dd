"""Fréchet distance between two sets of measured frames, from their moments alone.

Legend: N frames, K measures.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STILL: Final = 1e-5  # a measure that spreads less does not move, and sums cannot tell how little


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum [2 K] and sum of products [2 K, 2 K] of the measures and of their changes."""

    count: int
    total: Array
    products: Array

    @classmethod
    def of(cls, measures_NK: Array) -> Self:
        """The moments of one talk's frames; the first has no change and is left out."""
        rows = np.column_stack([measures_NK[1:], np.diff(measures_NK, axis=0)])
        return cls(len(rows), rows.sum(axis=0), rows.T @ rows)

    @classmethod
    def pooled(cls, several: Iterable[Self]) -> Self:
        """Of all their frames together."""
        moments = list(several)
        return cls(
            sum(m.count for m in moments),
            np.sum([m.total for m in moments], axis=0),
            np.sum([m.products for m in moments], axis=0),
        )

    @property
    def mean(self) -> Array:
        mean: Array = self.total / self.count
        return mean

    @property
    def covariance(self) -> Array:
        mean = self.mean
        covariance: Array = (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return covariance


def frechet_distance(generated: Moments, truth: Moments) -> float:
    """Distance of the measures and their changes, in standard deviations of the true measures.

    Squared mean difference plus trace of the covariances' difference, over their number.
    """
    half = len(truth.total) // 2
    levels = np.maximum(np.sqrt(np.maximum(np.diag(truth.covariance)[:half], 0)), STILL)
    scale = np.concatenate([levels, levels])
    first, second = (m.covariance / np.outer(scale, scale) for m in (generated, truth))
    root = _root(first)
    cross = _root(root @ second @ root)
    shift = (generated.mean - truth.mean) / scale
    distance = np.sum(shift**2) + np.trace(first + second - 2 * cross)
    return max(float(distance / len(scale)), 0.0)


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: Array = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root
