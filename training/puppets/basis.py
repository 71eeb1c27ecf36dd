"""Displacement bases of a puppet: what each control does to the control grid of each layer.

Every basis is a uniform cubic B-spline surface on the codec's 16x16 control grid, fitted by least
squares to landmark targets (`SurfaceFit`), so that the motion codes of a puppet are exact.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.engine.codec.closing import closing_code, hold_seam, hold_upper_face
from visavis.engine.codec.lids import lid_fit
from visavis.engine.codec.motion_latents import CODE_CHANNELS, CODE_SCALE, FRAME_SIZE, GRID
from visavis.engine.codec.surface_fit import SurfaceFit, down, layers_code
from visavis.engine.face.layout import FaceLayout
from visavis.engine.face.mesh import (
    BROW_LEFT_UPPER,
    BROW_RIGHT_UPPER,
    CHIN,
    EYES,
    FACE_OVAL,
    NOSE_TIP,
    UPPER_FACE,
)
from visavis.engine.face.mouth_points import MouthPoints
from visavis.training.puppets.controls import INDEX

Array = NDArray[np.float64]

# The controls as the bases see them: signed ones that act differently each way are split.
WEIGHTS: Final = (
    "jaw", "upper_lip", "lower_lip", "lower_lip_up", "wide", "narrow", "press", "smile", "brow",
    "blink_l", "blink_r", "yaw", "pitch", "roll", "tx", "ty", "zoom",
)  # fmt: skip

# Largest motions: fractions of the mouth's width, of the eye distance, degrees, pixels.
JAW_GAP: Final = 0.42
JAW_LINE: Final = {
    152: 0.85, 148: 0.82, 377: 0.82, 176: 0.74, 400: 0.74, 149: 0.6, 378: 0.6, 150: 0.42, 379: 0.42,
    136: 0.26, 365: 0.26, 172: 0.13, 397: 0.13, 58: 0.04, 288: 0.04,
}  # fmt: skip
YAW_DEGREES: Final = 9.0
PITCH_DEGREES: Final = 7.0
ROLL_DEGREES: Final = 3.5
SHIFT_PIXELS: Final = (5.0, 4.0)
ZOOM: Final = 0.025


def control_weights(controls: NDArray[np.float32]) -> NDArray[np.float32]:
    """Basis weights [..., 17] of controls [..., 15]."""
    c = {name: controls[..., i] for name, i in INDEX.items()}
    split = {
        "lower_lip": np.maximum(c["lower_lip"], 0),
        "lower_lip_up": np.maximum(-c["lower_lip"], 0),
        "wide": np.maximum(c["wide"], 0),
        "narrow": np.maximum(-c["wide"], 0),
    }
    c |= split
    return np.stack([c[name] for name in WEIGHTS], axis=-1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PuppetBasis:
    """Codes per unit of weight [17, 6, 16, 16] and the code always added [6, 16, 16]."""

    basis: NDArray[np.float32]
    rest: NDArray[np.float32]

    def codes(self, controls: NDArray[np.float32]) -> NDArray[np.float32]:
        """Motion codes [..., 6, 16, 16] of controls [..., 15]."""
        return np.tensordot(control_weights(controls), self.basis, axes=1) + self.rest


def _mouth_pair(face: MouthPoints, *, chin: bool = True) -> tuple[SurfaceFit, SurfaceFit]:
    """Both layers with what no control of the mouth moves, and a still chin on request."""
    pair = SurfaceFit(), SurfaceFit()
    hold_upper_face(face, *pair)
    for targets in pair if chin else ():
        targets.add(face.at(tuple(JAW_LINE)), 0.0, 0.5)
    return pair


def _jaw(face: MouthPoints) -> tuple[SurfaceFit, SurfaceFit]:
    gap = JAW_GAP * face.width
    corner = 0.14
    upper, lower = _mouth_pair(face, chin=False)
    for contour in (face.upper_inner, face.upper_outer):
        upper.move(contour, down(gap * corner * (1 - face.arch(contour))), 3)
    for contour in (face.lower_inner, face.lower_outer):
        lower.move(contour, down(gap * (corner + (1 - corner) * face.arch(contour))), 3)
    side, distance = face.beyond_corners()
    for targets in (upper, lower):
        targets.move(side, down(gap * corner * np.exp(-distance / 18)), 3)
    line = face.at(tuple(JAW_LINE))
    share = np.array(list(JAW_LINE.values()))
    lower.move(line, down(gap * share), 1)
    chin_centre = 0.5 * (face.points[17] + face.points[CHIN])
    lower.move(chin_centre[None], down(np.array([0.92 * gap])), 2)
    neck = face.points[CHIN] + np.array([[-34.0, 40], [0, 44], [34, 40], [-20, 62], [20, 62]])
    lower.add(neck, 0.0, 1)
    return upper, lower


def _upper_lip(face: MouthPoints) -> tuple[SurfaceFit, SurfaceFit]:
    upper, lower = _mouth_pair(face)
    amount = -0.11 * face.width
    upper.move(face.upper_inner, down(amount * face.arch(face.upper_inner)), 3)
    upper.move(face.upper_outer, down(0.85 * amount * face.arch(face.upper_outer)), 3)
    _hold_lip(lower, face.lower_inner, face.lower_outer)
    hold_seam(face, upper, lower)
    return upper, lower


def _lower_lip(face: MouthPoints, amount: float) -> tuple[SurfaceFit, SurfaceFit]:
    upper, lower = _mouth_pair(face, chin=False)
    shift = amount * face.width
    lower.move(face.lower_inner, down(shift * face.arch(face.lower_inner)), 3)
    lower.move(face.lower_outer, down(0.8 * shift * face.arch(face.lower_outer)), 3)
    lower.move(face.points[CHIN][None], down(np.array([0.2 * shift])), 1)
    _hold_lip(upper, face.upper_inner, face.upper_outer)
    hold_seam(face, upper, lower)
    return upper, lower


def _hold_lip(targets: SurfaceFit, *contours: Array) -> None:
    for contour in contours:
        targets.add(contour, 0.0, 3)


def _wide(face: MouthPoints, amount: float, thicken: float) -> tuple[SurfaceFit, SurfaceFit]:
    """Corners out (amount > 0) or in; both layers alike but for the lips' thickness."""
    upper, lower = _mouth_pair(face)
    side, distance = face.beyond_corners()
    sign = np.repeat([-1.0, 1.0], len(distance) // 2)
    fade = np.stack([sign * amount * face.width * np.exp(-distance / 14), 0 * distance], 1)
    for targets, contours, direction in (
        (upper, (face.upper_inner, face.upper_outer), -1),
        (lower, (face.lower_inner, face.lower_outer), 1),
    ):
        targets.move(side, fade, 2)
        for outer, contour in enumerate(contours):
            motion = np.stack(
                [
                    amount * face.width * face.across(contour),
                    direction * outer * thicken * face.width * face.arch(contour),
                ],
                axis=1,
            )
            targets.move(contour, motion, 3)
    return upper, lower


def _press(face: MouthPoints) -> tuple[SurfaceFit, SurfaceFit]:
    upper, lower = _mouth_pair(face)
    width = face.width
    upper.move(face.upper_outer, down(0.025 * width * face.arch(face.upper_outer)), 3)
    _hold_lip(upper, face.upper_inner)
    lower.move(face.lower_inner, down(-0.045 * width * face.arch(face.lower_inner)), 3)
    lower.move(face.lower_outer, down(-0.03 * width * face.arch(face.lower_outer)), 3)
    hold_seam(face, upper, lower)
    return upper, lower


def _smile(face: MouthPoints) -> tuple[SurfaceFit, SurfaceFit]:
    pair = _mouth_pair(face)
    side, distance = face.beyond_corners()
    sign = np.repeat([-1.0, 1.0], len(distance) // 2)
    reach = np.exp(-distance / 20)
    side_motion = face.width * np.stack([0.07 * sign * reach, -0.08 * reach], 1)
    for targets, contours in zip(
        pair,
        ((face.upper_inner, face.upper_outer), (face.lower_inner, face.lower_outer)),
        strict=True,
    ):
        targets.move(side, side_motion, 2)
        for contour in contours:
            across = face.across(contour)
            motion = face.width * np.stack([0.07 * across, -0.08 * np.abs(across) ** 1.5], 1)
            targets.move(contour, motion, 3)
    return pair


def _brow(face: MouthPoints) -> SurfaceFit:
    upper = SurfaceFit()
    rise = -0.065 * face.layout.eye_distance
    upper.move(face.at(BROW_LEFT_UPPER + BROW_RIGHT_UPPER), down(np.full(10, rise)), 2)
    upper.move(face.at((10, 109, 338, 151)), down(np.full(4, 0.35 * rise)), 1)
    upper.add(face.at(EYES), 0.0, 3)
    upper.add(face.at(UPPER_FACE), 0.0, 1)
    return upper


def _head(face: MouthPoints) -> dict[str, Array]:
    """Head flows [2, 16, 16] in pixels: 2.5-D rotation on an ellipsoid, shift and zoom, all fading
    into a still background and still shoulders."""
    step = 8
    y, x = np.mgrid[step / 2 : FRAME_SIZE : step, step / 2 : FRAME_SIZE : step]
    oval = face.at(FACE_OVAL)
    rx = 0.5 * np.ptp(oval[:, 0])
    chin = oval[:, 1].max()
    cx, top = oval[:, 0].mean(), oval[:, 1].min()
    cy, ry = 0.5 * (top + chin) - 6, 0.5 * (chin - top) + 14
    u, v = (x - cx) / (1.12 * rx), (y - cy) / (1.12 * ry)
    depth = rx * np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    nose = face.points[NOSE_TIP]
    depth += 9 * np.exp(-0.5 * (((x - nose[0]) / 10) ** 2 + ((y - nose[1]) / 13) ** 2))
    radius = np.hypot((x - cx) / (1.45 * rx), (y - cy + 8) / (1.4 * ry))
    inside = np.clip((2.0 - radius) / 0.95, 0, 1)
    inside = inside**2 * (3 - 2 * inside)
    body = np.clip((chin + 62 - y) / 70, 0, 1)
    mask = inside * body**2 * (3 - 2 * body)
    roll = np.deg2rad(ROLL_DEGREES)
    pivot_y = chin + 20
    yaw, pitch = np.sin(np.deg2rad(YAW_DEGREES)), np.sin(np.deg2rad(PITCH_DEGREES))
    zero = np.zeros_like(x)
    motions = {
        "yaw": (depth * yaw + 1.5 * mask, zero),
        "pitch": (zero, depth * pitch + 2.0 * mask),
        "roll": (-roll * (y - pivot_y) * mask, roll * (x - cx) * mask),
        "tx": (SHIFT_PIXELS[0] * mask, zero),
        "ty": (zero, SHIFT_PIXELS[1] * mask),
        "zoom": (ZOOM * (x - cx) * mask, ZOOM * (y - cy) * mask),
    }
    points = np.stack([x.ravel(), y.ravel()], 1)
    result = {}
    for name, motion in motions.items():
        targets = SurfaceFit()
        targets.add(points, -np.stack([m.ravel() for m in motion], 1))
        result[name] = targets.fit()
    return result


def fit_basis(layout: FaceLayout) -> PuppetBasis:
    """The bases of one framed portrait."""
    face = MouthPoints(layout)
    pairs = {
        "jaw": _jaw(face),
        "upper_lip": _upper_lip(face),
        "lower_lip": _lower_lip(face, 0.11),
        "lower_lip_up": _lower_lip(face, -0.05),
        "wide": _wide(face, 0.10, -0.01),
        "narrow": _wide(face, -0.17, 0.03),
        "press": _press(face),
        "smile": _smile(face),
    }
    uppers = {
        "brow": _brow(face),
        "blink_l": lid_fit(face, 0),
        "blink_r": lid_fit(face, 1),
    }
    basis = np.zeros((len(WEIGHTS), CODE_CHANNELS, GRID, GRID))
    for name, (upper, lower) in pairs.items():
        basis[WEIGHTS.index(name)] = layers_code(upper.fit(), lower.fit())
    for name, upper in uppers.items():
        flow = upper.fit()
        basis[WEIGHTS.index(name)] = layers_code(flow, np.zeros_like(flow))
    for name, flow in _head(face).items():
        basis[WEIGHTS.index(name), :2] = flow / np.array(CODE_SCALE[:2])[:, None, None]
    return PuppetBasis(basis=basis.astype(np.float32), rest=closing_code(layout))
