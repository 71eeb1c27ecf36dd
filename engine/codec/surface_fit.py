"""Smooth flows on the codec's control grid that move given points of a face as told.

Flows are backward (from the output to the source): a part that moves down by d has flow -d, all
along the way it may move.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.engine.codec.motion_latents import CODE_SCALE, FRAME_SIZE, GRID
from visavis.engine.codec.spline import point_weights

Array = NDArray[np.float64]


class SurfaceFit:
    """Points with the flow that they should have; `fit` is the smooth surface nearest to them."""

    def __init__(self) -> None:
        self._points: list[Array] = []
        self._flows: list[Array] = []
        self._weights: list[Array] = []

    def add(self, points: Array, flow: Array | float, weight: float = 1.0) -> None:
        """Flow [N, 2] (or one value for all) at points [N, 2], pixels."""
        points = np.atleast_2d(points)
        self._points.append(points)
        self._flows.append(np.broadcast_to(np.asarray(flow, np.float64), points.shape))
        self._weights.append(np.full(len(points), weight))

    def move(self, points: Array, motion: Array, weight: float = 1.0) -> None:
        """Points [N, 2] move by motion [N, 2]: the flow is -motion all along their way."""
        for part in (0.0, 0.35, 0.7, 1.0):
            self.add(points + part * motion, -motion, weight)

    def fit(self) -> Array:
        """Control grid [2, 16, 16] in pixels, by least squares."""
        points = np.concatenate(self._points)
        weights = np.concatenate(self._weights)[:, None]
        matrix = point_weights(torch.from_numpy(points), (GRID, GRID), FRAME_SIZE / GRID).numpy()
        weighted = matrix * weights
        normal = matrix.T @ weighted + _REGULARISER
        solution = np.linalg.solve(normal, weighted.T @ np.concatenate(self._flows))
        grid: Array = solution.T.reshape(2, GRID, GRID).astype(np.float64)
        return grid


def down(amount: Array) -> Array:
    """Motions [N, 2] downwards by amount [N] pixels."""
    return np.stack([np.zeros_like(amount), amount], axis=1)


def layers_code(upper_2hw: Array, lower_2hw: Array) -> Array:
    """Motion code [6, 16, 16] of the flows of the two layers in pixels; the head keeps still."""
    flows = np.concatenate([np.zeros_like(upper_2hw), upper_2hw, lower_2hw - upper_2hw])
    code: Array = flows / np.array(CODE_SCALE)[:, None, None]
    return code


def _second_differences() -> Array:
    rows = []
    index = np.arange(GRID * GRID).reshape(GRID, GRID)
    for lines in (index, index.T):
        for line in lines:
            for a, b, c in zip(line, line[1:], line[2:], strict=False):
                row = np.zeros(GRID * GRID)
                row[[a, b, c]] = 1, -2, 1
                rows.append(row)
    return np.array(rows)


_DIFFERENCES: Final = _second_differences()
_REGULARISER: Final = 0.03 * _DIFFERENCES.T @ _DIFFERENCES + 0.004 * np.eye(GRID * GRID)
