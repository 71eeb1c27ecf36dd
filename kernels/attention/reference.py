"""Attention in plain PyTorch, the definition that the other backends are tested against.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.kernels.attention.call import AttentionCall

SCORES_AT_ONCE = 1 << 28  # 1 GiB of float32; more queries than that are taken in parts


def plain_attention(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    """-> out [B, L, H, D] in the dtype of q, lse [B, H, L] float32 if wanted.

    Scores, softmax and sums in float32 (float64 where q is). A query that may see no key gets
    zeros, and -inf as its lse. Differentiable.
    """
    wide = torch.promote_types(call.q.dtype, torch.float32)
    q, k, v = (x.transpose(1, 2).to(wide) for x in (call.q, call.k, call.v))
    if call.lengths is not None:
        padding = torch.arange(call.keys, device=q.device) >= call.lengths[:, None]
        # zero weights do not silence a NaN
        k, v = (x.masked_fill(padding[:, None, :, None], 0) for x in (k, v))
    mask = call.additive_mask()
    rows = call.queries
    if not call.differentiates:
        rows = max(1, SCORES_AT_ONCE // (call.batch * call.heads * call.keys))
    parts = []
    for start in range(0, call.queries, rows):
        part_mask = mask
        if mask is not None and mask.shape[2] > 1:
            part_mask = mask[:, :, start : start + rows]
        parts.append(_attend(q[:, :, start : start + rows] * call.scale, k, v, part_mask))
    out, lse = (torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True))
    return out.transpose(1, 2).to(call.q.dtype), lse if call.return_lse else None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    lse = scores.logsumexp(-1)
    # for a row without keys exp(-inf - -inf) would be NaN
    weights = (scores - lse.masked_fill(lse == float("-inf"), 0)[..., None]).exp()
    return weights @ v, lse
