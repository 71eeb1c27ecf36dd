"""Colour transfer: give each frame the reference's mean and spread in CIE Lab (method section 1.7).

Images are channels-first RGB in [-1, 1]; Lab is channels-last, L in 0..100 (IEC 61966-2-1, D65).

Inside, colours are planes [3, ...], so that every step runs over contiguous memory. The curves are
a power above a threshold and a line below. Power of what exceeds the threshold plus line of what
falls short of it needs no choice by pixel; where they meet they are apart by less than 4e-7.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE_D65 = (0.95047, 1.0, 1.08883)
FLAT_STD = 1e-8  # a channel below this has no spread to rescale

_LINEAR_BELOW, _CURVED_BELOW = 0.04045, 0.0031308
_CUBE_BELOW, _ROOT_BELOW = 0.2068966, 0.008856
_ROOT_SLOPE = 7.787


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """[..., 3] in 0..1 -> Lab [..., 3], same dtype (float32 or float64)."""
    return _lab_planes(rgb.movedim(-1, 0).contiguous()).movedim(0, -1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab [..., 3] -> RGB [..., 3] clamped to 0..1."""
    return _rgb_planes(lab.movedim(-1, 0).contiguous()).movedim(0, -1)


class ColorMatcher:
    """Carries a reference's Lab statistics, computed once per avatar."""

    def __init__(self, reference_CHW: Tensor) -> None:
        """`reference_CHW`: RGB [3, H, W] in [-1, 1]."""
        rgb = _unit_planes(reference_CHW[None, :, None])
        self.mean, self.std = _statistics(_lab_planes(rgb), _flat(rgb))

    def __call__(self, video_BCFHW: Tensor, strength: float = 1.0) -> Tensor:
        """Corrected video [B, 3, F, H, W], each frame by its own statistics.

        Raises:
            ValueError: strength outside 0..1.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: must be in 0..1; 0 leaves the colours alone")
        if strength == 0:
            return video_BCFHW
        rgb = _unit_planes(video_BCFHW)
        lab = _lab_planes(rgb)
        mean, std = _statistics(lab, _flat(rgb))
        lab.sub_(mean).mul_(self.std / std).add_(self.mean)
        matched = _rgb_planes(lab).mul_(2).sub_(1).movedim(0, 1)
        return video_BCFHW + (matched - video_BCFHW) * strength if strength < 1 else matched


def _unit_planes(video_BCFHW: Tensor) -> Tensor:
    """[3, B, F, H, W] in 0..1."""
    return ((video_BCFHW + 1) / 2).clamp_(0, 1).movedim(1, 0).contiguous()


def _flat(rgb_CBFHW: Tensor) -> Tensor:
    """Frames of a single colour, [B, F, 1, 1]."""
    low, high = rgb_CBFHW.flatten(3).aminmax(dim=-1)
    return (low == high).all(dim=0)[..., None, None]


def _lab_planes(rgb: Tensor) -> Tensor:
    """Planes in 0..1 -> planes of L, a, b."""
    above = rgb.clamp(min=_LINEAR_BELOW).add_(0.055).div_(1.055).pow_(2.4)
    linear = above.add_(rgb.clamp(max=_LINEAR_BELOW).sub_(_LINEAR_BELOW), alpha=1 / 12.92)
    xyz = _mixed(_matrices(rgb.device, rgb.dtype)[0], linear)
    below = xyz.clamp(max=_ROOT_BELOW).sub_(_ROOT_BELOW)
    f = xyz.clamp_(min=_ROOT_BELOW).pow_(1 / 3).add_(below, alpha=_ROOT_SLOPE)
    lab = torch.empty_like(f)
    torch.mul(f[1], 116, out=lab[0]).sub_(16)
    torch.sub(f[0], f[1], out=lab[1]).mul_(500)
    torch.sub(f[1], f[2], out=lab[2]).mul_(200)
    return lab


def _rgb_planes(lab: Tensor) -> Tensor:
    """Planes of L, a, b -> planes in 0..1."""
    f = torch.empty_like(lab)
    torch.add(lab[0], 16, out=f[1]).div_(116)
    torch.add(f[1], lab[1], alpha=1 / 500, out=f[0])
    torch.sub(f[1], lab[2], alpha=1 / 200, out=f[2])
    below = f.clamp(max=_CUBE_BELOW).sub_(_CUBE_BELOW)
    xyz = f.clamp_(min=_CUBE_BELOW).pow_(3).add_(below, alpha=1 / _ROOT_SLOPE)
    linear = _mixed(_matrices(lab.device, lab.dtype)[1], xyz)
    below = linear.clamp(max=_CURVED_BELOW).sub_(_CURVED_BELOW)
    curved = linear.clamp_(min=_CURVED_BELOW).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return curved.add_(below, alpha=12.92).clamp_(0, 1)


@cache
def _matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Linear RGB to XYZ over white, and back. Once: a copy to a GPU would wait for its work."""
    with torch.inference_mode(False):
        to_xyz = torch.tensor(RGB_TO_XYZ, dtype=torch.float64)
        white = torch.tensor(WHITE_D65, dtype=torch.float64)
        there, back = to_xyz / white[:, None], torch.linalg.inv(to_xyz) * white
        return there.to(device, dtype), back.to(device, dtype)


def _mixed(matrix_33: Tensor, planes: Tensor) -> Tensor:
    """Each new plane as a sum of the three old ones."""
    return (matrix_33 @ planes.reshape(3, -1)).view(planes.shape)


def _statistics(lab_CBFHW: Tensor, flat_BF11: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over the picture, [3, B, F, 1, 1] each.

    A channel without spread is not scaled. Matrix products may round equal pixels unequally, which
    would then be scaled up to the reference's spread: so flat frames are told by their colours.
    """
    wide = lab_CBFHW.double()
    mean = wide.mean(dim=(3, 4), keepdim=True)
    norm = torch.linalg.vector_norm(wide - mean, dim=(3, 4), keepdim=True)
    std = norm / (lab_CBFHW.shape[3] * lab_CBFHW.shape[4]) ** 0.5
    spread = torch.where((std < FLAT_STD) | flat_BF11, torch.ones_like(std), std)
    return mean.to(lab_CBFHW.dtype), spread.to(lab_CBFHW.dtype)
