"""The video VAE's causal filter and the norm before it in plain PyTorch.

Letters: T frames, H W picture size, C (I) input and O output channels, h w kernel size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_NORM = 1e-12


def plain_filter(frames_THWC: Tensor, weight_OIThw: Tensor, bias_O: Tensor) -> Tensor:
    """3x3x3 products of frames with their margins, [T + 2, H + 2, W + 2, C] -> [T, H, W, O]."""
    volume = frames_THWC.permute(3, 0, 1, 2)[None]
    return F.conv3d(volume, weight_OIThw, bias_O)[0].permute(1, 2, 3, 0).contiguous()


def plain_pixel_norm(source: Tensor, target: Tensor, gamma_C: Tensor, silu: bool) -> None:
    """Fill `target` [T, H, W, C] with x / |x| * gamma, |x| over C; `silu`: then x * sigmoid(x).

    Statistics in float32 or wider.
    """
    wide = torch.promote_types(source.dtype, torch.float32)
    norm = torch.linalg.vector_norm(source, dim=-1, keepdim=True, dtype=wide)
    torch.div(source, norm.clamp_(min=SMALLEST_NORM), out=target)
    target.mul_(gamma_C)
    if silu:
        F.silu(target, inplace=True)
