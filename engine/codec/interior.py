"""The inside of a mouth: cavity, teeth and tongue, painted where the lips part.

Upper teeth hang on the skull (still-head coordinates), lower teeth and tongue on the jaw
(lower-layer coordinates). Where the portrait itself shows the inside of the mouth, its own pixels
are used. It is a rule and no network: as sharp at any size as the lips around it.

Legend: N frames, H W pixels of the window; positions and widths in portrait pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import Layers, Sources, reduced, sample
from visavis.engine.codec.motion_latents import FRAME_SIZE
from visavis.engine.face.layout import FaceLayout
from visavis.engine.face.mesh import (
    EYE_LEFT_LOWER,
    EYE_LEFT_UPPER,
    EYE_RIGHT_LOWER,
    EYE_RIGHT_UPPER,
    FACE_OVAL,
)

# What is seen of teeth in a portrait counts from so many pixels on, each at least that share as
# bright as teeth are expected to be.
MIN_TOOTH_PIXELS = 24
LEAST_TOOTH = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class MouthLook:
    """What one person's mouth looks like inside; colours RGB 0..1."""

    centre_x: float
    width: float
    seam_upper: Tensor  # [256]: y of the upper lip's edge for every x
    seam_lower: Tensor
    shown: Tensor  # [1, 1, 256, 256]: where the portrait shows the inside itself
    teeth: Tensor  # [3]
    flesh: Tensor  # [3]
    tooth_width: float
    overhang: float  # how far the upper teeth reach below the upper lip's edge, px


def mouth_look(image: NDArray[np.uint8], layout: FaceLayout) -> MouthLook:
    """Colours from the portrait's own light, proportions from its mouth."""
    rgb = np.asarray(image / 255, np.float32)
    oval = layout.landmarks[list(FACE_OVAL)]
    x0, y0 = np.clip(oval.min(0).astype(int), 0, 255)
    x1, y1 = np.clip(oval.max(0).astype(int), 1, 256)
    skin = rgb[y0:y1, x0:x1].reshape(-1, 3)
    light = max(float(np.quantile(skin.mean(1), 0.9)), _light_in_eyes(rgb, layout.landmarks))
    tone = np.median(skin, axis=0)
    grey = tone / max(float(tone.mean()), 1e-3)
    colourful = float(np.clip(np.ptp(tone) / 0.10, 0, 1))
    # Teeth are near white under the same light: a hint of its tint, less bright than the skin's
    # lights.
    teeth = np.clip(0.42 + 0.50 * light, 0.45, 0.90) * np.array([1.0, 0.96, 0.88]) ** colourful
    teeth = teeth * (0.85 + 0.15 * grey)
    flesh = np.clip(0.16 + 0.55 * light, 0.2, 0.7) * (
        np.array([0.78, 0.36, 0.36]) * colourful + 0.48 * (1 - colourful)
    )
    lip_gap = layout.lip_lower - layout.lip_upper
    y, _ = np.mgrid[:256, :256].astype(np.float32)
    # Softly, and less near the lower lip, whose own pixels must stay with it.
    shown = np.clip(np.minimum(y - layout.lip_upper - 0.5, layout.lip_lower - 1.5 - y) / 1.5, 0, 1)
    shown = np.where(lip_gap > 1, shown, 0).astype(np.float32)
    # What is painted goes on from the portrait's own teeth, above and below.
    teeth = _seen_teeth(rgb[shown > 0.5], teeth)
    # Tooth size varies a little from person to person, and is written in the face: no hidden draw.
    variety = float(np.sin(37.0 * layout.mouth_width + 11.0 * layout.eye_distance))
    return MouthLook(
        centre_x=layout.mouth_centre[0],
        width=layout.mouth_width,
        seam_upper=torch.from_numpy(layout.lip_upper),
        seam_lower=torch.from_numpy(layout.lip_lower),
        shown=torch.from_numpy(shown)[None, None],
        teeth=torch.from_numpy(teeth.astype(np.float32)),
        flesh=torch.from_numpy(flesh.astype(np.float32)),
        tooth_width=(0.150 + 0.012 * variety) * layout.mouth_width,
        overhang=(0.075 + 0.015 * variety) * layout.mouth_width,
    )


def _seen_teeth(
    inside_N3: NDArray[np.float32], expected: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The colour of what is bright and hardly red in the portrait's own mouth, if there is enough
    of it; else the one that is expected."""
    bright = inside_N3[inside_N3.min(axis=1) > LEAST_TOOTH * expected.min()]
    if len(bright) < MIN_TOOTH_PIXELS:
        return expected
    return np.asarray(np.median(bright, axis=0), np.float64)


def _light_in_eyes(rgb: NDArray[np.float32], landmarks: NDArray[np.float32]) -> float:
    """How bright white is in this light: the whites of the eyes do not change with the skin."""
    eyes = np.zeros(rgb.shape[:2], np.uint8)
    for upper, lower in ((EYE_LEFT_UPPER, EYE_LEFT_LOWER), (EYE_RIGHT_UPPER, EYE_RIGHT_LOWER)):
        contour = landmarks[list(upper) + list(lower[::-1])]
        cv2.fillPoly(eyes, [np.round(contour).astype(np.int32)], 1)
    inside = rgb[eyes > 0]
    if not len(inside):
        return 0.0
    return 0.95 * float(np.quantile(inside.min(axis=1), 0.9))


def paint_interior(look: MouthLook, portrait: Tensor, layers: Layers) -> Tensor:
    """Interior colours [N, 3, H, W] for every pixel of the window (seen only through the gap).

    Args:
        look: of the person.
        portrait: [1, 3, S, S], 0..1, of any size.
        layers: the composition whose gap is to be filled.
    """
    head = layers.sources.head
    colour = interior_colours(look, layers.sources)
    own = sample(
        portrait.expand(len(head), -1, -1, -1), reduced(head, FRAME_SIZE / portrait.shape[3])
    )
    return colour + own_share(look, head) * (own - colour)


def own_share(look: MouthLook, head_N2HW: Tensor) -> Tensor:
    """Where the portrait shows the inside itself, seen through the still head, [N, 1, H, W]."""
    shown = look.shown.to(head_N2HW.device, head_N2HW.dtype)
    return sample(shown.expand(len(head_N2HW), -1, -1, -1), head_N2HW)


def interior_colours(look: MouthLook, sources: Sources) -> Tensor:
    """What would be seen at each place if the lips were parted there, [N, 3, H, W] in 0..1."""
    head, lower = sources.head, sources.lower
    upper = sources.upper
    device, dtype = head.device, head.dtype
    half = 0.5 * look.width
    hx = (head[:, :1] - look.centre_x) / half
    lx = (lower[:, :1] - look.centre_x) / half
    below_upper = upper[:, 1:] - _line_at(look.seam_upper, upper[:, :1])  # px under the upper lip
    above_lower = _line_at(look.seam_lower, lower[:, :1]) - lower[:, 1:]  # px over the lower lip

    depth = torch.clamp(below_upper / (0.30 * look.width), 0, 1)
    throat = torch.tensor([0.16, 0.055, 0.06], device=device, dtype=dtype)[:, None, None]
    base = throat * (1.15 - 0.55 * depth) + 0.06 * look.flesh[:, None, None]

    # Tongue: a soft mound on the jaw.
    mound = 0.20 * look.width * torch.clamp(1 - (lx / 0.72) ** 2, 0, 1) ** 0.6
    tongue = torch.sigmoid((mound - above_lower) / (0.045 * look.width))
    sheen = 0.56 + 0.34 * torch.clamp(above_lower / (mound + 1e-3), 0, 1)
    sheen = sheen * (1 - 0.12 * torch.exp(-((lx / 0.08) ** 2)))
    colour = base + tongue * (look.flesh[:, None, None] * sheen - base)

    # Both lips shade the inside near their edges and towards the corners; teeth stand in front.
    near = torch.clamp(torch.minimum(below_upper, above_lower) / 2.5, 0, 1)
    colour = colour * (0.70 + 0.30 * near) * (1 - 0.45 * torch.clamp(hx.abs(), 0, 1) ** 3)

    # Lower teeth: their edge stands a little over the lower lip's; they lie in the shade.
    lower_edge = 0.045 * look.width * torch.clamp(1 - (lx / 0.80) ** 2, 0, 1)
    row = torch.sigmoid((lower_edge - above_lower) / 0.9) * _soft_sides(lx, 0.60)
    shaded = look.teeth * look.teeth.new_tensor([0.66, 0.57, 0.51])
    tooth = shaded[:, None, None] * _ridges(lower[:, :1], look, 0.68)
    colour = colour + 0.80 * row * (tooth - colour)

    # Upper teeth: in the still head's coordinates, an arched lower edge.
    seam_head = _line_at(look.seam_upper, head[:, :1])
    edge = seam_head + look.overhang * torch.clamp(1 - (hx / 0.95) ** 2, 0, 1) ** 0.5
    row = torch.sigmoid((edge - head[:, 1:]) / 0.6) * _soft_sides(hx, 0.80)
    lip_shade = 0.76 + 0.24 * torch.clamp(below_upper / (0.06 * look.width), 0, 1)
    side_shade = 1 - 0.50 * torch.clamp(hx.abs() / 0.85, 0, 1) ** 2.5
    tooth = look.teeth[:, None, None] * lip_shade * side_shade * _ridges(head[:, :1], look, 1.0)
    return (colour + row * (tooth - colour)).clamp(0, 1)


def _line_at(line: Tensor, x: Tensor) -> Tensor:
    """Linear interpolation of a per-column value at fractional x."""
    line = line.to(x.device, x.dtype)
    x = x.clamp(0, len(line) - 1.001)
    left = x.floor().long()
    f = x - left
    return line[left] * (1 - f) + line[left + 1] * f


def _soft_sides(x: Tensor, reach: float) -> Tensor:
    return torch.sigmoid((reach - x.abs()) / 0.05)


def _ridges(x: Tensor, look: MouthLook, scale: float) -> Tensor:
    """Teeth are round, and a little darker where they meet."""
    width = look.tooth_width * scale
    phase = torch.remainder((x - look.centre_x) / width + 0.5, 1.0) - 0.5
    return 1 - 0.05 * (2 * phase) ** 2 - 0.07 * torch.exp(-(((0.5 - phase.abs()) / 0.09) ** 2))
