"""Fitting a picture to the frame: scale until it covers, then cut the centre out."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def cover_size(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """Smallest (height, width) with the picture's aspect that covers `target`, rounded up.

    Raises:
        ValueError: an empty picture or target.
    """
    if min(height, width, *target) < 1:
        raise ValueError(f"{height}x{width} cannot be fitted to {target[0]}x{target[1]}: empty")
    scale = max(target[0] / height, target[1] / width)
    return math.ceil(scale * height), math.ceil(scale * width)


def fit_image(image: Image.Image, target: tuple[int, int]) -> Tensor:
    """RGB picture -> uint8 [3, H, W] of `target` (height, width): bilinear, antialiased."""
    height, width = cover_size(image.height, image.width, target)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    return _cut_centre(pixels, target)


def fit_tensor(image_CHW: Tensor, target: tuple[int, int]) -> Tensor:
    """uint8 or float [C, H, W] -> [C, *target], nearest pixels (masks keep their values)."""
    size = cover_size(image_CHW.shape[1], image_CHW.shape[2], target)
    resized = F.interpolate(image_CHW[None].float(), size=size, mode="nearest")[0]
    return _cut_centre(resized.to(image_CHW.dtype), target)


def _cut_centre(image_CHW: Tensor, target: tuple[int, int]) -> Tensor:
    top = round((image_CHW.shape[1] - target[0]) / 2.0)
    left = round((image_CHW.shape[2] - target[1]) / 2.0)
    return image_CHW[:, top : top + target[0], left : left + target[1]].contiguous()


def to_signed(image_u8: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return (image_u8.float() / 255 - 0.5) * 2
