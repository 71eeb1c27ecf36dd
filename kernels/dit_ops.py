"""The kernels under the names by which `engine/dit/fused.py` calls them.

Letters: B batch, N queries, L keys, W width of all heads, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.kernels.attention import attention as _attention
from visavis.kernels.modulate import gated_residual, gated_residual_layer_norm, layer_norm
from visavis.kernels.norm_rope import rms_norm, rms_norm_rope, rms_norm_rotate

__all__ = [
    "add_gated",
    "add_gated_norm",
    "attention",
    "attention_with_lse",
    "layer_norm",
    "rms_norm",
    "rms_norm_rotate",
    "rms_norm_rotate_both",
]


def add_gated(x: Tensor, h: Tensor, gate: Tensor | None) -> Tensor:
    """`gated_residual`."""
    return gated_residual(x, h, gate)


def add_gated_norm(
    x: Tensor,
    h: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`gated_residual_layer_norm`."""
    return gated_residual_layer_norm(x, h, gate, weight, bias, eps, dtype)


def rms_norm_rotate_both(
    q: Tensor,
    k: Tensor,
    weight_q: Tensor,
    weight_k: Tensor,
    eps: float,
    heads: int,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rms_norm_rope`."""
    return rms_norm_rope(q, k, weight_q, weight_k, eps, heads, cos, sin)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of [B, N, H, K] over [B, L, H, K] with a bias [B, L] per key -> [B, N, H, K]."""
    # an operator's result must not alias or depend on the layout that a backend happens to choose
    return _attention(q, k, v, bias_S=bias).contiguous()


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """-> (out [B, N, H, K], lse float32 [B, H, N]); parts over disjoint keys merge with it."""
    out, lse = _attention(q, k, v, return_lse=True)
    return out.contiguous(), lse
