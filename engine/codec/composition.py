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

    x: int = 0
    y: int = 0
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
        return (
            self.cover_upper * self.upper + self.cover_lower * self.lower + self.gap * interior
        )


def source_positions(codes_N6hw: Tensor, seams_N5SS: Tensor, window: Window = WHOLE) -> Sources:
    """Where each output pixel of the window comes from."""
    device, dtype = codes_N6hw.device, codes_N6hw.dtype
    scale = torch.tensor(CODE_SCALE, device=device, dtype=dtype)
    grids = codes_N6hw * scale[:, None, None]
    rows = spline_matrix(window.height, GRID, window.y, window.step, FRAME_SIZE).to(device, dtype)
    columns = spline_matrix(window.width, GRID, window.x, window.step, FRAME_SIZE).to(device, dtype)
    y = window.y + window.step * torch.arange(window.height, device=device, dtype=dtype)
    x = window.x + window.step * torch.arange(window.width, device=device, dtype=dtype)
    p = torch.stack([x.expand(window.height, -1), y[:, None].expand(-1, window.width)])
    head = p + evaluate(grids[:, :2], rows, columns)
    # A and D live in the still head's coordinates: they are evaluated on the plain pixel grid and
    # read at q. Both are smooth on the scale of a cell, so that half resolution loses nothing.
    half = spline_matrix(FRAME_SIZE // 2, GRID, 0.5, 2.0, FRAME_SIZE).to(device, dtype)
    flows = sample(evaluate(grids[:, 2:], half, half), (head - 0.5) / 2)
    shares = sample(seams_N5SS[:, 2:5], head)
    single, split = head + flows[:, :2], flows[:, 2:]
    return Sources(
        head=head,
        upper=single + shares[:, :1] * split,
        lower=single + (1 - shares[:, 1:2]) * split,
        opens=shares[:, 2:],
    )


def sample(image_NCSS: Tensor, positions_N2HW: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Image values at pixel positions; the border repeats."""
    size = torch.tensor(
        [image_NCSS.shape[3], image_NCSS.shape[2]],
        device=image_NCSS.device,
        dtype=image_NCSS.dtype,
    )
    grid = (2 * positions_N2HW.permute(0, 2, 3, 1) + 1) / size - 1
    return F.grid_sample(image_NCSS, grid, mode=mode, padding_mode="border", align_corners=False)


def coverage(distance: Tensor) -> Tensor:
    """Antialiased step: 0 at -0.75 px, 1 at +0.75 px of a signed distance in pixels."""
    return (distance / 1.5 + 0.5).clamp(0, 1)


def compose(
    portrait_N3SS: Tensor,
    seams_N5SS: Tensor,
    codes_N6hw: Tensor,
    window: Window = WHOLE,
    *,
    mode: str = "bilinear",
) -> Layers:
    """Warp both layers of portraits (0..1) by their codes.

    `seams` holds the portrait's layer maps (`FaceLayout.seams`). The upper layer lies in front.
    """
    sources = source_positions(codes_N6hw, seams_N5SS, window)
    cover_upper = coverage(-sample(seams_N5SS[:, :1], sources.upper))
    below = coverage(sample(seams_N5SS[:, 1:2], sources.lower))
    gap = (1 - cover_upper - below).clamp(0, 1) * sources.opens
    return Layers(
        upper=sample(portrait_N3SS, sources.upper, mode=mode),
        lower=sample(portrait_N3SS, sources.lower, mode=mode),
        cover_upper=cover_upper,
        cover_lower=1 - cover_upper - gap,
        gap=gap,
        sources=sources,
    )
