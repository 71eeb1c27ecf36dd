"""The code that shuts a mouth which its portrait shows open, and how far codes leave it open.

Legend: N codes, L points of a lip's contour, h w control grid.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_CHANNELS, CODE_SCALE, FRAME_SIZE, GRID
from visavis.engine.codec.spline import point_weights
from visavis.engine.codec.surface_fit import SurfaceFit, down, layers_code
from visavis.engine.face.layout import FaceLayout
from visavis.engine.face.mesh import (
    BROW_LEFT_UPPER,
    BROW_RIGHT_UPPER,
    CHIN,
    EYES,
    UPPER_FACE,
)
from visavis.engine.face.mouth_points import MouthPoints

# Points of a contour of eleven at which an opening is measured: corners say nothing of it.
_MIDDLE: Final = slice(4, 7)
# A point's way is followed back so often; flows bend little over it.
_FIXED_POINTS: Final = 6


def closing_code(layout: FaceLayout) -> NDArray[np.float32]:
    """Motion code [6, 16, 16] that shuts the portrait's mouth: the upper lip comes down, the lower
    one up, nothing else moves. Zero where the mouth is shut."""
    if layout.mouth_gap <= 0:
        return np.zeros((CODE_CHANNELS, GRID, GRID), np.float32)
    face = MouthPoints(layout)
    upper, lower = SurfaceFit(), SurfaceFit()
    hold_upper_face(face, upper, lower)
    opening = np.maximum(face.lower_inner[:, 1] - face.upper_inner[:, 1], 0)
    outer = np.interp(face.upper_outer[:, 0], face.upper_inner[:, 0], opening, left=0, right=0)
    upper.move(face.upper_inner, down(0.3 * opening), 4)
    upper.move(face.upper_outer, down(0.2 * outer), 2)
    lower.move(face.lower_inner, down(-0.75 * opening), 4)
    lower.move(face.lower_outer, down(-0.6 * outer), 2)
    lower.move(face.points[CHIN][None], down(np.array([-0.35 * opening.max()])), 1)
    hold_seam(face, upper, lower)
    return layers_code(upper.fit(), lower.fit()).astype(np.float32)


def lips_apart(codes_N6hw: Tensor, layout: FaceLayout) -> Tensor:
    """How far apart codes show the inner lips at the mouth's middle, [N] in pixels of the portrait;
    negative where they overlap. The head's motion is left out."""
    face = MouthPoints(layout)
    scale = codes_N6hw.new_tensor(CODE_SCALE)[:, None, None]
    flows = (codes_N6hw * scale).double().cpu()
    upper_flow, split = flows[:, 2:4], flows[:, 4:]
    upper = _shown_at(face.upper_inner[_MIDDLE], upper_flow)
    lower = _shown_at(face.lower_inner[_MIDDLE], upper_flow + split)
    return (lower - upper)[..., 1].median(dim=1).values.to(codes_N6hw)


def missing_share(codes_N6hw: Tensor, closing_6hw: Tensor, layout: FaceLayout) -> float:
    """How much of the closing code faces that should be at rest lack, from 0 to 1: with it their
    median shuts the mouth as tightly as the closing code alone. 0 without one."""
    opened = float(lips_apart(torch.zeros_like(closing_6hw)[None], layout))
    shut = float(lips_apart(closing_6hw[None], layout))
    if opened <= shut:
        return 0.0
    rest = float(lips_apart(codes_N6hw, layout).median())
    return min(max((rest - shut) / (opened - shut), 0.0), 1.0)


def _shown_at(points_L2: NDArray[np.float64], flow_N2hw: Tensor) -> Tensor:
    """Where flows show points of the portrait, [N, L, 2]: what lies at p comes from p + flow(p)."""
    count, grid = len(flow_N2hw), flow_N2hw.flatten(2).mT
    shown = source = torch.from_numpy(points_L2).expand(count, -1, -1)
    for _ in range(_FIXED_POINTS):
        weights = point_weights(shown.reshape(-1, 2), (GRID, GRID), FRAME_SIZE / GRID)
        shown = source - weights.view(count, len(points_L2), -1) @ grid
    return shown


def hold_upper_face(face: MouthPoints, *layers: SurfaceFit) -> None:
    """What no control of the mouth moves: nose, eyes, brows, upper cheeks."""
    for targets in layers:
        targets.add(face.at(UPPER_FACE), 0.0, 0.5)
        targets.add(face.at(EYES), 0.0)
        targets.add(face.at(BROW_LEFT_UPPER + BROW_RIGHT_UPPER), 0.0)


def hold_seam(face: MouthPoints, *layers: SurfaceFit) -> None:
    """Nor the cheeks beside the mouth's corners, where the layers are one."""
    side, _ = face.beyond_corners()
    for targets in layers:
        targets.add(side, 0.0, 3)
