"""Portraits drawn from numbers, with known landmarks: no photograph, no detector."""

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.face import mesh
from visavis.engine.face.framing import Portrait
from visavis.engine.schematic import schematic_portrait

SIZE = 256
# Row of the schematic's inner lips (pixel centres at integers).
MOUTH_ROW = 0.71 * SIZE - 0.5
EYES = ((99, 106), (155, 106))  # between the lids, (x, y)


def texture(seed: int = 0) -> NDArray[np.uint8]:
    """A smooth coloured pattern [256, 256, 3] without two alike places."""
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.float32)
    return np.clip(128 + 30 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def drawn_portrait(*, line_below: float = 0.0, opening: float = 0.0) -> Portrait:
    """The schematic face over a pattern.

    `line_below`: draws the shut mouth's dark line so many pixels under the landmarks' line.
    `opening`: moves the lower inner lip's landmarks down by so many pixels.
    """
    plain = schematic_portrait(SIZE)
    landmarks = plain.landmarks.copy()
    image = texture()
    if opening:
        x = np.linspace(-1, 1, len(mesh.LIP_INNER_LOWER))
        landmarks[list(mesh.LIP_INNER_LOWER), 1] += opening * (1 - x**2)
    else:
        row = round(MOUTH_ROW + line_below)
        image[row - 1 : row + 2, 98:159] = image[row - 1 : row + 2, 98:159] // 4
    return Portrait(image, landmarks)
