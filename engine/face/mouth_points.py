"""The lips of one face as points, and where along the mouth a point lies."""

import numpy as np
from numpy.typing import NDArray

from visavis.engine.face.layout import FaceLayout
from visavis.engine.face.mesh import (
    LIP_INNER_LOWER,
    LIP_INNER_UPPER,
    LIP_OUTER_LOWER,
    LIP_OUTER_UPPER,
)

Array = NDArray[np.float64]


class MouthPoints:
    """Named points of one framed face [N, 2], float64 pixels; contours go from corner to corner.

    The inner lips are put on the layout's lines, which follow the picture closer than the mesh.
    """

    def __init__(self, layout: FaceLayout) -> None:
        self.layout = layout
        self.points = layout.landmarks.astype(np.float64)
        self.width = layout.mouth_width
        self.upper_inner = self._on_line(LIP_INNER_UPPER, layout.lip_upper)
        self.lower_inner = self._on_line(LIP_INNER_LOWER, layout.lip_lower)
        self.upper_outer = self.at(LIP_OUTER_UPPER)
        self.lower_outer = self.at(LIP_OUTER_LOWER)
        self.left, self.right = self.upper_outer[0], self.upper_outer[-1]
        self.centre = 0.5 * (self.left + self.right)

    def at(self, index: tuple[int, ...]) -> Array:
        """Landmarks by number."""
        return self.points[list(index)]

    def _on_line(self, index: tuple[int, ...], line: NDArray[np.float32]) -> Array:
        points = self.at(index).copy()
        points[:, 1] = np.interp(points[:, 0], np.arange(len(line)), line)
        return points

    def across(self, points: Array) -> Array:
        """Position across the mouth: -1 at the left corner, 1 at the right."""
        half = 0.5 * (self.right[0] - self.left[0])
        across: Array = np.clip((points[:, 0] - self.centre[0]) / half, -1, 1)
        return across

    def arch(self, points: Array, power: float = 0.75) -> Array:
        """1 at the mouth's centre, 0 at its corners."""
        return (1 - self.across(points) ** 2) ** power

    def beyond_corners(self) -> tuple[Array, Array]:
        """Points on the seam's extension past both corners, and their distance in pixels."""
        distance = np.array([3.0, 8, 14, 22, 32, 44])
        points = []
        for corner, side in ((self.left, -1), (self.right, 1)):
            points.append(np.stack([corner[0] + side * distance, np.full(6, corner[1])], 1))
        return np.concatenate(points), np.tile(distance, 2)
