"""A portrait in the canonical frame: face found, upright, of fixed size and place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.face.detector import Face, FaceLandmarker
from visavis.engine.face.image import ImageError, ImageSource, load_image
from visavis.engine.face.mesh import (
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    LIP_INNER_LOWER,
    LIP_INNER_UPPER,
    NOSE_TIP,
    OUTER_EYE_CORNERS,
)
from visavis.engine.face.warp import Pixels, Points, Square, cut

__all__ = [
    "CropJitter",
    "FaceTooSmallError",
    "ImageError",
    "NoFaceError",
    "Portrait",
    "canonical_square",
    "frame_face",
    "frame_portrait",
    "load_image",
]

EYE_DISTANCE = 0.32  # outer corner to outer corner, of the frame's side
EYE_CENTRE = (0.5, 0.42)  # the point between the eyes, of the frame's side
MAX_ROLL = math.radians(12)  # a head tilted less than this keeps its tilt
# The side of the square that a picture gives, over the side of the frames to be shown: below this
# they look soft however well they are enlarged.
SOFT_BELOW = 0.6
# Enlarging softens edges; this share of what a blur takes away is put back.
SHARPENING = 0.6

MIN_FACE_SIDE = 32
SMALL_FACE_SIDE = 96
MAX_TURN = 0.17  # nose tip's distance from the middle of the eyes, of the eye distance
OPEN_MOUTH = 0.06  # inner lip gap, of the eye distance


class NoFaceError(ValueError):
    """No usable face in the picture."""


class FaceTooSmallError(NoFaceError):
    """The largest face has too few pixels."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """A framed face.

    `image` is uint8 RGB [size, size, 3]; `landmarks` float32 [468, 2] in its pixels, pixel centres
    at half-integers; `warnings` are sentences for the user; `face_count` is the number of faces
    found in the picture that it comes from; `fine` is the same square with more pixels, uint8
    [fine_size, fine_size, 3], if it was asked for. `frame_picture` makes portraits of other shapes.
    """

    image: Pixels
    landmarks: Points
    warnings: tuple[str, ...] = ()
    face_count: int = 1
    fine: Pixels | None = None

    @property
    def finest(self) -> Pixels:
        """The framed picture with as many pixels as there are of it."""
        return self.image if self.fine is None else self.fine


@dataclass(frozen=True, slots=True, kw_only=True)
class CropJitter:
    """A deviation from the canonical frame, for training: shift as a fraction of the frame's
    side (positive moves the face right and down), relative size of the face, and rotation of
    the face in radians (positive is clockwise)."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    angle: float = 0.0


def frame_portrait(
    source: ImageSource,
    size: int = 256,
    *,
    fine_size: int | None = None,
    landmarker: FaceLandmarker | None = None,
    jitter: CropJitter | None = None,
) -> Portrait:
    """Find the largest face of a picture and bring it into the canonical frame.

    There the outer eye corners are 0.32 * size apart and the point between the eyes lies at
    (0.5, 0.42) * size. With `fine_size` the portrait also holds that square at that size, for
    frames with more pixels, and warns of a picture that has too few for them. Pass a `landmarker`
    to reuse its networks over many pictures. Raises ImageError for an unreadable picture,
    NoFaceError when no face is found or the largest is too small.
    """
    image = load_image(source)
    faces = (landmarker or FaceLandmarker()).detect(image)
    if not faces:
        raise NoFaceError(
            "no face was found in the picture; use a photograph or drawing that shows one face "
            "from the front, with eyes and mouth uncovered"
        )
    if faces[0].side < MIN_FACE_SIDE:
        raise FaceTooSmallError(
            f"the largest face is {faces[0].side:.0f} pixels high, fewer than {MIN_FACE_SIDE}; "
            "use a larger picture or crop it closer"
        )
    return frame_face(
        image, faces[0], size, fine_size=fine_size, jitter=jitter, face_count=len(faces)
    )


def frame_face(
    image: Pixels,
    face: Face,
    size: int = 256,
    *,
    fine_size: int | None = None,
    jitter: CropJitter | None = None,
    face_count: int = 1,
) -> Portrait:
    """Bring a known face of an image [H, W, 3] into the canonical frame (see frame_portrait)."""
    square = canonical_square(face.landmarks, jitter or CropJitter())
    framed = _cut_extended(image, square, size)
    landmarks = square.from_picture(face.landmarks, size)
    warnings = _warnings(face, face_count, square.side, fine_size or size)
    if fine_size is None:
        return Portrait(framed, landmarks, warnings, face_count)
    fine = sharpened(_cut_extended(image, square, fine_size), fine_size / square.side)
    return Portrait(framed, landmarks, warnings, face_count, fine)


def sharpened(image: Pixels, enlargement: float) -> Pixels:
    """A picture that was enlarged so many times, with edges nearly as steep as before.

    Interpolation keeps an edge's height and makes it `enlargement` times as wide; an unsharp mask
    of that width makes it steeper. Up to 1 the picture is as it was.
    """
    amount = SHARPENING * min(max(enlargement - 1, 0.0), 1.0)
    if amount == 0:
        return image
    soft = cv2.GaussianBlur(image, (0, 0), 0.6 * enlargement, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.addWeighted(image, 1 + amount, soft, -amount, 0), dtype=np.uint8)


def canonical_square(landmarks: Points, jitter: CropJitter) -> Square:
    """The square of the picture that becomes the frame, from landmarks [468, 2]."""
    points = landmarks.astype(np.float64)
    left, right = points[list(OUTER_EYE_CORNERS)]
    middle = points[list(EYE_CORNERS_LEFT + EYE_CORNERS_RIGHT)].mean(axis=0)
    across = right - left
    roll = math.atan2(across[1], across[0])
    angle = (roll if abs(roll) > MAX_ROLL else 0.0) - jitter.angle
    side = float(np.hypot(*across)) / (EYE_DISTANCE * jitter.scale)
    # Where the middle of the eyes shall lie, relative to the frame's centre, in picture pixels.
    x, y = (EYE_CENTRE[0] - 0.5 + jitter.dx) * side, (EYE_CENTRE[1] - 0.5 + jitter.dy) * side
    c, s = math.cos(angle), math.sin(angle)
    return Square(
        float(middle[0] - (c * x - s * y)), float(middle[1] - (s * x + c * y)), side, angle
    )


def _cut_extended(image: Pixels, square: Square, size: int) -> Pixels:
    """Resample the square; beyond the picture its reflection blurs away with the distance."""
    framed = cut(image, square, size, border=cv2.BORDER_REFLECT, interpolation=cv2.INTER_LANCZOS4)
    outside = _distance_outside(image, square, size)
    if not np.any(outside > 0):
        return framed
    result = framed.astype(np.float32)
    # Three ever softer layers: a mirrored ear or eye must not be readable as one.
    for sigma, start, full in ((0.008, 0.0, 0.015), (0.03, 0.01, 0.06), (0.08, 0.04, 0.16)):
        soft = cv2.GaussianBlur(framed, (0, 0), sigma * size, borderType=cv2.BORDER_REFLECT)
        weight = np.clip((outside / size - start) / (full - start), 0, 1)[..., None]
        weight = weight * weight * (3 - 2 * weight)
        result += weight * (np.asarray(soft, dtype=np.float32) - result)
    return np.clip(result.round(), 0, 255).astype(np.uint8)


def _distance_outside(image: Pixels, square: Square, size: int) -> NDArray[np.float32]:
    """How far each pixel of the frame lies outside the picture, in frame pixels; [size, size]."""
    height, width = image.shape[:2]
    steps = np.arange(size, dtype=np.float32) + 0.5
    x, y = np.meshgrid(steps, steps)
    points = square.to_picture(np.stack([x.ravel(), y.ravel()], axis=1), size)
    beyond = np.maximum(np.maximum(-points, points - (width, height)), 0)
    distance = np.hypot(beyond[:, 0], beyond[:, 1]) * (size / square.side)
    return distance.reshape(size, size).astype(np.float32)


def _warnings(face: Face, face_count: int, side: float, shown: int) -> tuple[str, ...]:
    """What the user should know; `side` picture pixels become frames of `shown` pixels."""
    points = face.landmarks.astype(np.float64)
    left, right = points[list(OUTER_EYE_CORNERS)]
    distance = float(np.hypot(*(right - left)))
    axis = (right - left) / distance
    turn = float((points[NOSE_TIP] - (left + right) / 2) @ axis) / distance
    gaps = points[list(LIP_INNER_LOWER)] - points[list(LIP_INNER_UPPER)]
    gap = float(np.hypot(gaps[:, 0], gaps[:, 1]).max()) / distance
    found = []
    if face_count > 1:
        found.append(f"{face_count} faces were found; the largest one is used.")
    if face.side < SMALL_FACE_SIDE:
        found.append(
            f"The face is only {face.side:.0f} pixels high and will look soft; "
            f"a larger picture (at least {SMALL_FACE_SIDE} pixels of face) is better."
        )
    elif side < SOFT_BELOW * shown:
        found.append(
            f"The face is {face.side:.0f} pixels high and is enlarged for frames of {shown}; a "
            f"picture with {face.side * shown / side:.0f} pixels of face would look sharper."
        )
    if abs(turn) > MAX_TURN:
        found.append("The head is turned to the side; a picture from the front moves better.")
    if gap > OPEN_MOUTH:
        found.append("The mouth is open; a picture with closed lips moves better.")
    return tuple(found)
