"""The codes that shut each eye, how far codes shut them, and blinks that are shown as such.

What the sampler draws of a blink is that there is one, latent by latent: within each latent the
lids follow the same curve, an average over where blinks may begin. Two latents of one blink then
shut the eyes twice, six times a second, and half each time. So the time course of what is shown is
a blink's, and only when it begins is the sampler's.

Legend: N codes of a chunk, E the two eyes (left in the picture first), G latents of four frames,
h w control grid.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import (
    CODE_SCALE,
    FRAME_SIZE,
    GRID,
    TEMPORAL_STRIDE,
)
from visavis.engine.codec.spline import point_weights
from visavis.engine.codec.surface_fit import Array, SurfaceFit, down, layers_code
from visavis.engine.face.layout import FaceLayout
from visavis.engine.face.mesh import (
    BROW_LEFT_UPPER,
    BROW_RIGHT_UPPER,
    EYE_LEFT_LOWER,
    EYE_LEFT_UPPER,
    EYE_RIGHT_LOWER,
    EYE_RIGHT_UPPER,
)
from visavis.engine.face.mouth_points import MouthPoints

# A shut lid moves so much of its eye's height; the lashes cover the rest.
_WAY: Final = 0.97
_UPPER: Final = (EYE_LEFT_UPPER, EYE_RIGHT_UPPER)
_LOWER: Final = (EYE_LEFT_LOWER, EYE_RIGHT_LOWER)
_BROWS: Final = (BROW_LEFT_UPPER, BROW_RIGHT_UPPER)
# Of a contour of nine points, those by which a lid is read.
_MIDDLE: Final = slice(3, 6)
_DY: Final = 3
# Both eyes, by the frame: shut in three, open again in four, as blinks of the training data are.
BLINK: Final = (0.33, 0.86, 1.0, 0.95, 0.7, 0.37, 0.09, 0.0)
# A latent that shuts the eyes so far begins a blink, unless the one before it did. Twelve talks of
# six training portraits so have 19.5 blinks a minute in chunks of 33 frames and 17.6 in chunks of
# 13; their true motion has 18.3.
BEGINS: Final = 0.5
# The last frame of such a latent, over its most.
_LAST_FRAME: Final = 0.45


@dataclass(frozen=True, slots=True)
class Lids:
    """codes [E, 6, h, w] shut an eye each; readers [E, h, w] say of a code's upper layer (y) how
    far it shuts it, 1 = wholly."""

    codes: Tensor
    readers: Tensor

    def closures(self, codes_N6hw: Tensor) -> Tensor:
        """How far each eye is shut, [N, E]; below 0 it is open wider than in the portrait."""
        return torch.einsum("nhw,ehw->ne", codes_N6hw[:, _DY], self.readers)

    def blinking(self, codes_N6hw: Tensor) -> Tensor:
        """The same codes of a whole chunk, N = 1 + 4 G, its motion frames included, with whole
        blinks of both eyes where they begin one, and eyes as open as they say elsewhere."""
        closures = self.closures(codes_N6hw)
        change = blink_closures(closures) - closures
        return codes_N6hw + torch.einsum("ne,echw->nchw", change, self.codes)


def blink_closures(closures_NE: Tensor) -> Tensor:
    """Closures as they are shown, of those that were sampled.

    Eyes that disagree shut by their geometric mean, which is nothing where one is open; how much
    wider than in the portrait an eye is open stays its own affair. Of the first latent's
    predecessor only its last frame is known, the first of these. Where that is the portrait itself,
    exactly 0, the first latent is never shown, and no blink that would begin in it.
    """
    agreed = closures_NE.clamp_min(0).prod(dim=1).sqrt()
    begins = agreed[1:].view(-1, TEMPORAL_STRIDE).amax(dim=1) >= BEGINS
    before = torch.cat([agreed[:1] >= _LAST_FRAME * BEGINS, begins[:-1]])
    begins &= ~before
    begins[:1] &= closures_NE[0].any()
    blink = closures_NE.new_tensor(BLINK)
    shown = begins[:, None] * blink[:TEMPORAL_STRIDE]
    shown[1:] += begins[:-1, None] * blink[TEMPORAL_STRIDE:]
    shown = torch.cat([agreed[:1], shown.flatten()])
    return closures_NE.clamp_max(0) + shown[:, None]


def measure_lids(layout: FaceLayout, device: torch.device | str = "cpu") -> Lids:
    """The lids of a framed portrait."""
    face = MouthPoints(layout)
    codes, readers = [], []
    for eye in range(2):
        flow = lid_fit(face, eye).fit()
        codes.append(layers_code(flow, np.zeros_like(flow)))
        lid, height = _lid(face, eye)
        halfway = (lid + down(0.5 * height + 0.8))[_MIDDLE]
        weights = point_weights(torch.from_numpy(halfway), (GRID, GRID), FRAME_SIZE / GRID)
        share = -CODE_SCALE[_DY] / (_WAY * np.maximum(height[_MIDDLE], 1.0))
        readers.append((torch.from_numpy(share)[:, None] * weights).mean(dim=0).view(GRID, GRID))
    lids = Lids(torch.from_numpy(np.stack(codes)).float(), torch.stack(readers).float())
    own = torch.diagonal(lids.closures(lids.codes))
    return Lids(lids.codes.to(device), (lids.readers / own[:, None, None]).to(device))


def lid_fit(face: MouthPoints, eye: int) -> SurfaceFit:
    """Flow of the upper layer that shuts one eye (0: the picture's left) and moves no other."""
    upper = SurfaceFit()
    lid, height = _lid(face, eye)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        upper.add(lid + down(part * height + 0.8), down(-_WAY * height), 4)
    upper.move(lid - np.array([0, 4.5]), down(0.55 * height), 1)
    upper.add(face.at(_BROWS[eye]) + np.array([0, 3.0]), 0.0, 2)
    upper.add(face.at(_UPPER[1 - eye]), 0.0, 2)
    upper.add(face.at((6, 168, 8)), 0.0, 2)
    return upper


def _lid(face: MouthPoints, eye: int) -> tuple[Array, Array]:
    """The upper lid's contour [9, 2] and how far the lower one is below each of its points [9]."""
    lid, low = face.at(_UPPER[eye]), face.at(_LOWER[eye])
    return lid, np.maximum(np.interp(lid[:, 0], low[:, 0], low[:, 1]) - lid[:, 1], 0)
