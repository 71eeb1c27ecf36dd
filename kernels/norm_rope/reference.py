"""RMS norm and rotary positions in plain PyTorch.

Letters: B batch, N tokens, W width of all heads, H heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def plain_rms_norm(x_BNW: Tensor, weight_W: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + eps) * weight over the last axis, dtype of x (arXiv 1910.07467 eq. 4)."""
    wide = x_BNW.to(torch.promote_types(x_BNW.dtype, torch.float32))
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    # rounded to the input's dtype before the weight, as the released model was trained
    return (wide * scale).to(x_BNW.dtype) * weight_W.to(x_BNW.dtype)


def plain_rotate(x_BNHD: Tensor, cos_NR: Tensor, sin_NR: Tensor) -> Tensor:
    """Turn neighbouring channel pairs by the tables' angles, R = D / 2 (arXiv 2104.09864 eq. 34).

    In float32 or wider, rounded once to the dtype of x.
    """
    wide = x_BNHD.to(torch.promote_types(x_BNHD.dtype, torch.float32))
    even, odd = wide.reshape(*wide.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos_NR.unsqueeze(-2), sin_NR.unsqueeze(-2)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x_BNHD.dtype)


def plain_rms_norm_rotate(
    x_BNW: Tensor, weight_W: Tensor, eps: float, heads: int, cos_NR: Tensor, sin_NR: Tensor
) -> Tensor:
    """`plain_rms_norm`, then `plain_rotate` -> [B, N, H, D]."""
    normed = plain_rms_norm(x_BNW, weight_W, eps)
    return plain_rotate(normed.reshape(*normed.shape[:-1], heads, -1), cos_NR, sin_NR)
