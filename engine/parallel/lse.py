"""Attention that also says how much it saw: the log-sum-exp of its scores.

Letters: B batch, N queries, L keys, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.engine.dit.attention import AttentionImpl
from visavis.engine.dit.fused import fused_attention_with_lse, fuses, wide


def attend_with_lse(
    q_BNHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, impl: AttentionImpl
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √K) v and log Σ exp(q kᵀ / √K) -> [B, N, H, K] and [B, H, N], no gradients.

    The second is float32, or float64 for float64.
    """
    if fuses(q_BNHK):
        return fused_attention_with_lse(q_BNHK, k_BLHK, v_BLHK)
    q, k, v = (x.transpose(1, 2) for x in (q_BNHK, k_BLHK, v_BLHK))
    if impl == "plain":
        scores = wide((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2))
        lse = scores.logsumexp(-1)
        out = (scores - lse.unsqueeze(-1)).exp().to(v.dtype) @ v
    else:
        out, lse = _sdpa_with_lse(q, k, v)
    return out.transpose(1, 2), lse


def _sdpa_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's kernels, which `scaled_dot_product_attention` calls and keeps this result of."""
    ops = torch.ops.aten
    if q.device.type == "cpu":
        out, lse = ops._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif q.dtype in (torch.float16, torch.bfloat16):
        out, lse = ops._scaled_dot_product_flash_attention(q, k, v)[:2]
    else:
        out, lse = ops._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
    return out, lse[..., : q.shape[2]]
