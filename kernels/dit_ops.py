"""The kernels under the names by which `engine/dit/fused.py` calls them.

Letters: B batch, N queries, L keys, W width of all heads, H heads, K head size.
"""

from __future__ import annotations

from torch import Tensor

from visavis.kernels.attention import attention as _attention
from visavis.kernels.modulate import gated_residual as add_gated
from visavis.kernels.modulate import gated_residual_layer_norm as add_gated_norm
from visavis.kernels.modulate import layer_norm
from visavis.kernels.norm_rope import rms_norm, rms_norm_rotate
from visavis.kernels.norm_rope import rms_norm_rope as rms_norm_rotate_both

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


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of [B, N, H, K] over [B, L, H, K] with a bias [B, L] per key -> [B, N, H, K]."""
    # an operator's result must not alias or depend on the layout that a backend happens to choose
    return _attention(q, k, v, bias_S=bias).contiguous()


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """-> (out [B, N, H, K], lse float32 [B, H, N]); parts over disjoint keys merge with it."""
    out, lse = _attention(q, k, v, return_lse=True)
    return out.contiguous(), lse
