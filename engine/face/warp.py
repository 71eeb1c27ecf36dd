"""Upright squares cut out of a picture: one similarity transform, filtered against aliasing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Square:
    """A square region of a picture, in picture pixels.

    `x`, `y` is its centre, `side` its length and `angle` the rotation in radians (positive turns
    the square's x axis towards the picture's y axis). Pixel centres lie at half-integers: the
    picture covers [0, W] x [0, H].
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_picture(self, points: Points, size: int) -> Points:
        """Carry points [N, 2] from the square's own [0, size] coordinates to picture pixels."""
        scale = self.side / size
        c, s = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        local = points.astype(np.float64) - size / 2
        turned = local @ np.array([[c, s], [-s, c]]) + (self.x, self.y)
        return np.asarray(turned, dtype=np.float32)

    def from_picture(self, points: Points, size: int) -> Points:
        """Carry picture points [N, 2] into the square's own [0, size] coordinates."""
        scale = size / self.side
        c, s = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        local = points.astype(np.float64) - (self.x, self.y)
        turned = local @ np.array([[c, -s], [s, c]]) + size / 2
        return np.asarray(turned, dtype=np.float32)


def cut(
    image: Pixels,
    square: Square,
    size: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
    interpolation: int = cv2.INTER_LINEAR,
) -> Pixels:
    """Resample a square of an image [H, W, 3] to [size, size, 3].

    A square larger than its output is first reduced by averaging, so that big photographs do
    not alias; outside the picture `border` (an OpenCV border mode) fills in.
    """
    height, width = image.shape[:2]
    reduction = size / square.side
    if reduction < 0.75:
        # Only the part that the square can touch is averaged, not the whole photograph.
        reach = square.side * (abs(math.cos(square.angle)) + abs(math.sin(square.angle))) / 2
        margin = 2 / reduction
        left = int(np.clip(square.x - reach - margin, 0, width - 1))
        top = int(np.clip(square.y - reach - margin, 0, height - 1))
        right = int(np.clip(math.ceil(square.x + reach + margin), left + 1, width))
        bottom = int(np.clip(math.ceil(square.y + reach + margin), top + 1, height))
        if border != cv2.BORDER_CONSTANT:
            # Reflections reach back into the picture as far as the square sticks out of it.
            left, top, right, bottom = 0, 0, width, height
        part = image[top:bottom, left:right]
        new_width = max(1, round(part.shape[1] * reduction))
        new_height = max(1, round(part.shape[0] * reduction))
        reduced = cv2.resize(part, (new_width, new_height), interpolation=cv2.INTER_AREA)
        scale = np.array([new_width / part.shape[1], new_height / part.shape[0]])
        offset = np.array([left, top], dtype=np.float64)
    else:
        reduced = image
        scale = np.ones(2)
        offset = np.zeros(2)
    corners = np.array([[0, 0], [size, 0], [0, size]], dtype=np.float32)
    source = (square.to_picture(corners, size).astype(np.float64) - offset) * scale
    # OpenCV puts pixel centres at integers, we at half-integers.
    matrix = cv2.getAffineTransform(
        (corners - 0.5).astype(np.float32), (source - 0.5).astype(np.float32)
    )
    result = cv2.warpAffine(
        reduced,
        matrix,
        (size, size),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=(0, 0, 0),
    )
    return np.asarray(result, dtype=np.uint8)
