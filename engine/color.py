"""Colour transfer: give each frame the reference's mean and spread in CIE Lab (method section 1.7).

Images are channels-first RGB in [-1, 1]; Lab is channels-last, L in 0..100 (IEC 61966-2-1, D65).
"""

from __future__ import annotations

import torch
from torch import Tensor

RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE_D65 = (0.95047, 1.0, 1.08883)
FLAT_STD = 1e-8  # a channel below this has no spread to rescale


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """[..., 3] in 0..1 -> Lab [..., 3], same dtype (float32 or float64)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    matrix = rgb.new_tensor(RGB_TO_XYZ)
    xyz = linear @ matrix.T / rgb.new_tensor(WHITE_D65)
    x, y, z = torch.where(
        xyz > 0.008856, xyz.clamp(min=0.008856).pow(1 / 3), 7.787 * xyz + 16 / 116
    ).unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab [..., 3] -> RGB [..., 3] clamped to 0..1."""
    lightness, a, b = lab.unbind(-1)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, y - b / 200), dim=-1)
    xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787) * lab.new_tensor(WHITE_D65)
    inverse = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64)).to(lab)
    linear = xyz @ inverse.T
    curved = 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp(0, 1)


class ColorMatcher:
    """Carries a reference's Lab statistics, computed once per avatar."""

    def __init__(self, reference_CHW: Tensor) -> None:
        """`reference_CHW`: RGB [3, H, W] in [-1, 1]."""
        self.mean, self.std = _statistics(_frames_to_lab(reference_CHW[None, :, None]))

    def __call__(self, video_BCFHW: Tensor, strength: float = 1.0) -> Tensor:
        """Corrected video [B, 3, F, H, W], each frame by its own statistics.

        Raises:
            ValueError: strength outside 0..1.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength}: must be in 0..1; 0 leaves the colours alone")
        if strength == 0:
            return video_BCFHW
        lab = _frames_to_lab(video_BCFHW)
        mean, std = _statistics(lab)
        matched = lab_to_rgb((lab - mean) * (self.std / std) + self.mean)
        blended = matched.movedim(-1, 1) * 2 - 1
        return video_BCFHW + (blended - video_BCFHW) * strength if strength < 1 else blended


def _frames_to_lab(video_BCFHW: Tensor) -> Tensor:
    return rgb_to_lab(((video_BCFHW + 1) / 2).clamp(0, 1).movedim(1, -1))


def _statistics(lab_BFHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over the picture, [B, F, 1, 1, 3] each.

    In float64: float32 leaves rounding noise in the spread of a flat frame, which would then be
    scaled up to the reference's.
    """
    wide = lab_BFHWC.double()
    mean = wide.mean(dim=(2, 3), keepdim=True)
    std = (wide - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    spread = torch.where(std < FLAT_STD, torch.ones_like(std), std)
    return mean.to(lab_BFHWC.dtype), spread.to(lab_BFHWC.dtype)
