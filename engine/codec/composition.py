"""The two-layer backward warp that turns motion codes into pixels.

For an output pixel p: q = p + H(p) is the still head, a = q + A(q) the source on the upper layer,
b = a + D(q) the source on the lower layer. Seam maps tell which layer a source belongs to; where
neither layer covers p, the mouth is open (`gap`).

Legend: N frames, H W pixels, S source size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_SCALE, FRAME_SIZE, GRID
from visavis.engine.codec.spline import evaluate, spline_matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Part of the 256-pixel frame, sampled every `step` pixels."""

    x: float = 0
    y: float = 0
    width: int = FRAME_SIZE
    height: int = FRAME_SIZE
    step: float = 1.0


WHOLE = Window()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Source positions in portrait pixels, each [N, 2, H, W] (x, y)."""

    head: Tensor
    upper: Tensor
    lower: Tensor
    opens: Tensor  # [N, 1, H, W]: where a gap may open


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What the composition saw; colours [N, 3, H, W] in 0..1, coverages [N, 1, H, W]."""

    upper: Tensor
    lower: Tensor
    cover_upper: Tensor
    cover_lower: Tensor
    gap: Tensor
    sources: Sources

    def blend(self, interior: Tensor) -> Tensor:
        """The frame, with `interior` [N, 3, H, W] seen through the gap."""
        return self.cover_upper * self.upper + self.cover_lower * self.lower + self.gap * interior


def source_positions(codes_N6hw: Tensor, seams_N5SS: Tensor, window: Window = WHOLE) -> Sources:
    """Where each output pixel of the window comes from.

    Flows are smooth on the scale of a cell: they are computed on every second pixel and
    interpolated.
    """
    coarse = _halve(window)
    maps = source_offsets(codes_N6hw, seams_N5SS, coarse)
    if coarse != window:
        maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    p = _pixels(window, codes_N6hw)
    return Sources(
        head=p + maps[:, :2], upper=p + maps[:, 2:4], lower=p + maps[:, 4:6], opens=maps[:, 6:]
    )


def source_offsets(codes_N6hw: Tensor, seams_N5SS: Tensor, window: Window) -> Tensor:
    """How far from each output pixel of the window its sources lie, and where a gap may open.

    Returns [N, 7, H, W]: (x, y) of the head, the upper and the lower layer in pixels, and `opens`.
    """
    scale = codes_N6hw.new_tensor(CODE_SCALE)
    grids = codes_N6hw * scale[:, None, None]
    head_flow = evaluate(grids[:, :2], *_matrices(window, codes_N6hw))
    head = _pixels(window, codes_N6hw) + head_flow
    # A and D live in the still head's coordinates: they are evaluated on a plain pixel grid and
    # read at q.
    every_fourth = Window(x=1.5, y=1.5, width=FRAME_SIZE // 4, height=FRAME_SIZE // 4, step=4.0)
    surfaces = evaluate(grids[:, 2:], *_matrices(every_fourth, codes_N6hw))
    flows = sample(surfaces, reduced(head, 4))
    shares = sample(seams_N5SS[:, 2:5], head)
    single, split = head_flow + flows[:, :2], flows[:, 2:]
    upper = single + shares[:, :1] * split
    lower = single + (1 - shares[:, 1:2]) * split
    return torch.cat([head_flow, upper, lower, shares[:, 2:]], dim=1)


def _halve(window: Window) -> Window:
    if window.step != 1.0:
        return window
    return Window(
        x=window.x + 0.5,
        y=window.y + 0.5,
        width=window.width // 2,
        height=window.height // 2,
        step=2.0,
    )


def _matrices(window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
    rows = spline_matrix(window.height, GRID, window.y, window.step, FRAME_SIZE)
    columns = spline_matrix(window.width, GRID, window.x, window.step, FRAME_SIZE)
    return rows.to(like), columns.to(like)


def _pixels(window: Window, like: Tensor) -> Tensor:
    x = window.x + window.step * torch.arange(window.width, device=like.device, dtype=like.dtype)
    y = window.y + window.step * torch.arange(window.height, device=like.device, dtype=like.dtype)
    return torch.stack([x.expand(window.height, -1), y[:, None].expand(-1, window.width)])


def sample(image_NCSS: Tensor, positions_N2HW: Tensor) -> Tensor:
    """Image values at pixel positions, bilinear; the border repeats."""
    size = torch.tensor(
        [image_NCSS.shape[3], image_NCSS.shape[2]],
        device=image_NCSS.device,
        dtype=image_NCSS.dtype,
    )
    grid = (2 * positions_N2HW.permute(0, 2, 3, 1) + 1) / size - 1
    return F.grid_sample(
        image_NCSS, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def reduced(positions: Tensor, reduction: float) -> Tensor:
    """The same positions in a picture that is smaller by a factor."""
    return positions if reduction == 1 else (positions - 0.5 * (reduction - 1)) / reduction


def coverage(distance: Tensor) -> Tensor:
    """Antialiased step: 0 at -0.75 px, 1 at +0.75 px of a signed distance in pixels."""
    return (distance / 1.5 + 0.5).clamp(0, 1)


def compose(
    portrait_N3SS: Tensor,
    seams_N5SS: Tensor,
    codes_N6hw: Tensor,
    window: Window = WHOLE,
    *,
    reduction: float = 1,
) -> Layers:
    """Warp both layers of portraits (0..1) by their codes.

    A portrait of another size says so: `reduction` 2 is half the size, 0.5 twice.

    `seams` holds the portrait's layer maps (`FaceLayout.seams`). The upper layer lies in front.
    """
    sources = source_positions(codes_N6hw, seams_N5SS, window)
    cover_upper = coverage(-sample(seams_N5SS[:, :1], sources.upper))
    below = coverage(sample(seams_N5SS[:, 1:2], sources.lower))
    gap = (1 - cover_upper - below).clamp(0, 1) * sources.opens
    return Layers(
        upper=sample(portrait_N3SS, reduced(sources.upper, reduction)),
        lower=sample(portrait_N3SS, reduced(sources.lower, reduction)),
        cover_upper=cover_upper,
        cover_lower=1 - cover_upper - gap,
        gap=gap,
        sources=sources,
    )
