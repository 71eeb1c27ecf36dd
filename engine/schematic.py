"""A schematic face for warm-up: a portrait without a photograph, a file or a detector."""

import numpy as np
from numpy.typing import NDArray

from visavis.engine.face import mesh
from visavis.engine.face.framing import EYE_CENTRE, EYE_DISTANCE, Portrait

_SKIN = 128
_LIP_HALF_WIDTH = 0.11  # all lengths are fractions of the frame's side
_MOUTH_Y = 0.71
_EYE_HALF_WIDTH = 0.05
_OVAL_CENTRE = (0.5, 0.52)
_OVAL_RADII = (0.27, 0.36)


def schematic_portrait(size: int = 256) -> Portrait:
    """A plain grey picture [size, size, 3] with the landmarks of a face in the canonical frame."""
    points = np.tile(np.array(_OVAL_CENTRE, np.float32), (468, 1))
    turn = 2 * np.pi * np.arange(len(mesh.FACE_OVAL)) / len(mesh.FACE_OVAL)
    oval = np.stack([np.sin(turn), -np.cos(turn)], axis=1) * _OVAL_RADII + _OVAL_CENTRE
    points[list(mesh.FACE_OVAL)] = oval

    inner_eye = EYE_DISTANCE / 2 - _EYE_HALF_WIDTH
    for side, upper, lower, brow_upper, brow_lower in (
        (-1, mesh.EYE_LEFT_UPPER, mesh.EYE_LEFT_LOWER, mesh.BROW_LEFT_UPPER, mesh.BROW_LEFT_LOWER),
        (
            1,
            mesh.EYE_RIGHT_UPPER,
            mesh.EYE_RIGHT_LOWER,
            mesh.BROW_RIGHT_UPPER,
            mesh.BROW_RIGHT_LOWER,
        ),
    ):
        eye = (EYE_CENTRE[0] + side * inner_eye, EYE_CENTRE[1])
        points[list(lower)] = _arc(eye, _EYE_HALF_WIDTH, 0.012, len(lower))
        points[list(upper)] = _arc(eye, _EYE_HALF_WIDTH, -0.018, len(upper))
        brow = (eye[0], eye[1] - 0.06)
        points[list(brow_upper)] = _arc(brow, 0.07, -0.02, len(brow_upper))
        points[list(brow_lower)] = _arc((brow[0], brow[1] + 0.015), 0.07, -0.02, len(brow_lower))

    mouth = (0.5, _MOUTH_Y)
    for contour, half_width, rise in (
        (mesh.LIP_OUTER_UPPER, _LIP_HALF_WIDTH, -0.03),
        (mesh.LIP_OUTER_LOWER, _LIP_HALF_WIDTH, 0.035),
        (mesh.LIP_INNER_UPPER, 0.9 * _LIP_HALF_WIDTH, 0.0),
        (mesh.LIP_INNER_LOWER, 0.9 * _LIP_HALF_WIDTH, 0.0),
    ):
        points[list(contour)] = _arc(mouth, half_width, rise, len(contour))

    heights = np.linspace(EYE_CENTRE[1], 0.56, len(mesh.NOSE_BRIDGE))
    points[list(mesh.NOSE_BRIDGE)] = np.stack([np.full_like(heights, 0.5), heights], axis=1)
    points[list(mesh.NOSE_BASE)] = _arc((0.5, 0.6), 0.05, 0.01, len(mesh.NOSE_BASE))
    points[mesh.NOSE_TIP] = (0.5, 0.58)
    image = np.full((size, size, 3), _SKIN, np.uint8)
    return Portrait(image, points * np.float32(size))


def _arc(
    centre: tuple[float, float], half_width: float, rise: float, n: int
) -> NDArray[np.float64]:
    """`n` points of a flat arch from left to right, `rise` (downwards) high in the middle."""
    x = np.linspace(-1, 1, n)
    return np.stack([centre[0] + half_width * x, centre[1] + rise * (1 - x * x)], axis=1)
