"""Where a portrait's seams are, and the layout latents that tell the transformer so.

All positions are pixels of the framed 256-pixel portrait, pixel centres at integers; "left" and
"right" are the picture's.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.face.lip_edges import corner_fade, parted_lips
from visavis.engine.face.mesh import (
    BROW_LEFT_UPPER,
    BROW_RIGHT_UPPER,
    CHIN,
    EYE_LEFT_LOWER,
    EYE_LEFT_UPPER,
    EYE_RIGHT_LOWER,
    EYE_RIGHT_UPPER,
    FACE_OVAL,
    LIP_INNER_LOWER,
    LIP_INNER_UPPER,
    NOSE_TIP,
)

Array = NDArray[np.float32]

SIZE: Final = 256
LAYOUT_GRID: Final = 16
LAYOUT_CHANNELS: Final = 16
SEAM_LIMIT: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceLayout:
    """The measures of one framed face.

    `lid_line`, `lip_upper`, `lip_lower` give the seam's y for every x [256]; the two lip lines are
    one where the mouth is shut.
    """

    landmarks: Array
    lid_line: Array
    lip_upper: Array
    lip_lower: Array
    mouth_centre: tuple[float, float]
    mouth_width: float
    mouth_gap: float
    eye_distance: float

    @property
    def seams(self) -> Array:
        """Layer maps [5, 256, 256] of the portrait.

        0, 1: signed distances in pixels of the upper and of the lower layer's edge, negative above
        the lid line and the lip seam, positive below; between eyes and mouth, where both layers
        move alike, the sign flips back at half height.
        2, 3: how far D is added to the upper source and withheld from the lower one. Both are 0
        where the face tears (between the corners of mouth and eyes); elsewhere they blend the
        layers into one smooth surface.
        4: where a gap may open (the mouth).
        """
        y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
        middle = 0.5 * (self.lid_line + self.lip_upper)
        edges = [
            np.where(y < middle, y - self.lid_line, y - lip)
            for lip in (self.lip_upper, self.lip_lower)
        ]
        eyes = np.minimum(
            *(
                _outside(x, self.landmarks[list(contour), 0], 1.0, 5.0)
                for contour in (EYE_LEFT_UPPER, EYE_RIGHT_UPPER)
            )
        )
        mouth = _outside(x, self.landmarks[[61, 291], 0], -2.0, 7.0)
        whole = np.where(y < middle, eyes, mouth)
        below = _smoothstep((0.5 * (edges[0] + edges[1]) + 12) / 24)
        below *= np.where(y < middle, _smoothstep((middle - y) / 14), 1)
        gap = (1 - mouth) * _smoothstep((y - self.lip_upper + 18) / 8)
        distances = np.clip(np.stack(edges), -SEAM_LIMIT, SEAM_LIMIT)
        shares = np.stack([whole * below, whole * (1 - below), gap])
        return np.concatenate([distances, shares]).astype(np.float32)


def measure_layout(image: NDArray[np.uint8], landmarks: Array) -> FaceLayout:
    """Seams and measures of a framed portrait.

    Args:
        image: uint8 RGB [256, 256, 3].
        landmarks: float32 [468, 2], pixels, pixel centres at half-integers (`Portrait`).
    """
    points = landmarks.astype(np.float32) - 0.5
    x = np.arange(SIZE, dtype=np.float32)
    lids = points[list(EYE_LEFT_UPPER + EYE_RIGHT_UPPER)]
    # The lashes belong to the lid, so its edge lies just below the contour.
    lid_line = _line(x, lids) + 0.8
    upper, lower = points[list(LIP_INNER_UPPER)], points[list(LIP_INNER_LOWER)]
    left, right = points[LIP_INNER_UPPER[0]], points[LIP_INNER_UPPER[-1]]
    width = float(np.hypot(*(points[291] - points[61])))
    gap = float(np.median(lower[4:7, 1] - upper[4:7, 1]))
    lip_upper, lip_lower = _line(x, upper), _line(x, lower)
    if gap < 0.07 * width:
        meeting = 0.5 * (lip_upper + lip_lower)
        parted = parted_lips(image, meeting, int(left[0]), int(right[0]))
        if parted is None:
            lip_upper = lip_lower = _darkest_line(image, meeting, int(left[0]), int(right[0]))
            gap = 0.0
        else:
            lip_upper, lip_lower = parted
            middle = np.abs(x - points[13, 0]) < 0.15 * width
            gap = float(np.median((lip_lower - lip_upper)[middle]))
    centre = 0.25 * (points[61] + points[291] + points[13] + points[14])
    return FaceLayout(
        landmarks=points,
        lid_line=lid_line,
        lip_upper=lip_upper,
        lip_lower=np.maximum(lip_lower, lip_upper),
        mouth_centre=(float(centre[0]), float(centre[1])),
        mouth_width=width,
        mouth_gap=gap,
        eye_distance=float(np.hypot(*(points[263] - points[33]))),
    )


def layout_latents(layout: FaceLayout) -> Array:
    """Sixteen maps [16, 16, 16] of the layout, of about unit range."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    mx, my = layout.mouth_centre
    width = layout.mouth_width
    points = layout.landmarks
    upper, lower = layout.seams[:2]
    mouth = _bump(x - mx, y - my - 4, width * 0.55, width * 0.4)
    eyes = []
    openings = []
    for top, bottom in ((EYE_LEFT_UPPER, EYE_LEFT_LOWER), (EYE_RIGHT_UPPER, EYE_RIGHT_LOWER)):
        contour = points[list(top + bottom)]
        centre = contour.mean(axis=0)
        eyes.append(_bump(x - centre[0], y - centre[1], 15.0, 9.0))
        openings.append(float(np.ptp(contour[:, 1])) / 10.0)
    oval = np.zeros((SIZE, SIZE), np.float32)
    cv2.fillPoly(oval, [np.round(points[list(FACE_OVAL)]).astype(np.int32)], 1.0)
    oval = np.asarray(cv2.GaussianBlur(oval, (0, 0), 4), np.float32)
    left_brow, right_brow = (
        _bump(x - centre[0], y - centre[1], 18.0, 8.0)
        for centre in (
            points[list(BROW_LEFT_UPPER)].mean(0),
            points[list(BROW_RIGHT_UPPER)].mean(0),
        )
    )
    nose, chin = points[NOSE_TIP], points[CHIN]
    maps = [
        np.tanh(upper / 16),
        np.tanh(lower / 16),
        mouth,
        mouth * (x - mx) / width * 2,
        mouth * (y - my) / width * 2,
        mouth * width / 48,
        mouth * layout.mouth_gap / 6,
        eyes[0],
        eyes[1],
        eyes[0] * openings[0] + eyes[1] * openings[1],
        left_brow + right_brow,
        _bump(x - nose[0], y - nose[1], 14.0, 14.0),
        _bump(x - chin[0], y - chin[1], 22.0, 12.0),
        oval,
        oval * (x - SIZE / 2) / 64,
        oval * (y - SIZE / 2) / 64,
    ]
    cell = SIZE // LAYOUT_GRID
    stacked = np.stack(maps).astype(np.float32)
    latents: Array = stacked.reshape(-1, LAYOUT_GRID, cell, LAYOUT_GRID, cell).mean(axis=(2, 4))
    return latents


def _line(x: Array, contour: Array) -> Array:
    order = np.argsort(contour[:, 0])
    line: Array = np.interp(x, contour[order, 0], contour[order, 1]).astype(np.float32)
    return line


def _smoothstep(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _outside(x: Array, contour_x: Array, margin: float, ramp: float) -> Array:
    """0 between the contour's ends, rising to 1 within `ramp` px from `margin` px past them."""
    left, right = float(contour_x.min()), float(contour_x.max())
    past = np.maximum(left - x, x - right) - margin
    return _smoothstep(past / ramp)


def _bump(dx: Array, dy: Array, sx: float, sy: float) -> Array:
    return np.exp(-0.5 * ((dx / sx) ** 2 + (dy / sy) ** 2)).astype(np.float32)


def _darkest_line(image: NDArray[np.uint8], line: Array, left: int, right: int) -> Array:
    """The shut mouth's seam: the darkest path within 4 px of the landmarks' line.

    The mesh is off by a pixel or two, and a seam beside the dark line would tear the lip's skin.
    """
    reach = 4
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 0.8)
    columns = np.arange(max(left + 1, 0), min(right, SIZE - 1))
    if len(columns) < 8:
        return line
    offsets = np.arange(-reach, reach + 1)
    rows = np.clip(np.round(line[columns]).astype(int)[:, None] + offsets, 0, SIZE - 1)
    cost = grey[rows, columns[:, None]].astype(np.float32)
    cost -= cost.min(axis=1, keepdims=True)
    cost += 0.6 * np.abs(offsets)
    total = cost.copy()
    steps = np.zeros(total.shape, int)
    jump = 4.0 * np.abs(offsets[:, None] - offsets[None, :])
    for i in range(1, len(columns)):
        reachable = total[i - 1][None, :] + jump
        steps[i] = reachable.argmin(axis=1)
        total[i] += reachable.min(axis=1)
    path = np.empty(len(columns), int)
    path[-1] = total[-1].argmin()
    for i in range(len(columns) - 1, 0, -1):
        path[i - 1] = steps[i, path[i]]
    offset = cv2.GaussianBlur(offsets[path].astype(np.float32)[None], (0, 0), 2.0)[0]
    refined = line.copy()
    refined[columns] += offset * corner_fade(len(path))
    return refined
