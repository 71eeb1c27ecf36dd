"""Which part of a framed portrait moves with the head: the person, not what is behind.

GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004; OpenCV's) tells the person's colours from the
background's, beginning with what the landmarks say about where a head and shoulders must be.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.face.mesh import FACE_OVAL

# The matte is soft on the scale of many pixels: so coarse a picture is enough, and fast.
_GRID: Final = 96
_ROUNDS: Final = 5
# Fractions of the frame's side: the head may move so far beyond its outline, and the background
# follows it less and less over so much more.
PLATEAU: Final = 0.022
FADE: Final = 0.10
# A person fills neither less nor more of the canonical frame; then the colours told nothing.
_LEAST_SHARE, _GREATEST_SHARE = 0.12, 0.95

Array = NDArray[np.float32]


def head_share(image: NDArray[np.uint8], landmarks: Array, size: int) -> Array:
    """How much of the head's motion each pixel follows, 0..1, float32 [size, size].

    1 on the person and close by, 0 in the background. All 1 where the person's colours are those of
    the background.

    Args:
        image: uint8 RGB [n, n, 3], a face in the canonical frame.
        landmarks: float32 [468, 2] in its pixels, pixel centres at half-integers.
        size: side of the answer.
    """
    person = _person(image, landmarks)
    if not _LEAST_SHARE < person.mean() < _GREATEST_SHARE:
        return np.ones((size, size), np.float32)
    cells = cv2.distanceTransform(1 - person, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / _GRID
    distance = cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)
    away = np.clip((distance - PLATEAU) / FADE, 0, 1)
    share: Array = np.asarray(1 - away * away * (3 - 2 * away), dtype=np.float32)
    return share


def _person(image: NDArray[np.uint8], landmarks: Array) -> NDArray[np.uint8]:
    """1 where the person is, uint8 [96, 96]."""
    small = cv2.resize(image, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    oval = landmarks[list(FACE_OVAL)] * (_GRID / image.shape[0])
    centre, (width, height) = oval.mean(axis=0), np.ptp(oval, axis=0)
    chin = float(oval[:, 1].max())
    labels = np.full((_GRID, _GRID), cv2.GC_PR_BGD, np.uint8)
    head = (round(0.68 * width), round(0.80 * height))
    crown = (round(float(centre[0])), round(float(centre[1]) - 0.12 * height))
    cv2.ellipse(labels, crown, head, 0, 0, 360, cv2.GC_PR_FGD, -1)
    _fill(labels, centre[0], chin, (0.4 * width, 1.1 * width), 0.1 * height, cv2.GC_PR_FGD)
    face = np.round((oval - centre) * 0.92 + centre).astype(np.int32)
    cv2.fillPoly(labels, [face], cv2.GC_FGD)
    _fill(labels, centre[0], chin, (0.25 * width, 0.3 * width), 0.2 * height, cv2.GC_FGD)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(
        cv2.cvtColor(small, cv2.COLOR_RGB2LAB),
        labels,
        (0, 0, 0, 0),
        background,
        foreground,
        _ROUNDS,
        cv2.GC_INIT_WITH_MASK,
    )
    person = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    # Twigs and lamps that only touch the head are not of it.
    person = np.asarray(cv2.morphologyEx(person, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    _, parts = cv2.connectedComponents(person)
    whole: NDArray[np.uint8] = (parts == parts[face[0, 1], face[0, 0]]).astype(np.uint8)
    return whole


def _fill(
    labels: NDArray[np.uint8],
    x: float,
    chin: float,
    half_widths: tuple[float, float],
    above: float,
    label: int,
) -> None:
    """Neck or shoulders: from `above` the chin, half_widths[0] wide, down to the frame's edge."""
    top, bottom = half_widths
    y = chin - above
    corners = [[x - top, y], [x + top, y], [x + bottom, _GRID], [x - bottom, _GRID]]
    cv2.fillPoly(labels, [np.round(corners).astype(np.int32)], label)
