"""Queries and keys in 8 bits, so that their product runs at twice the rate. Approximate.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visavis.kernels.attention.call import AttentionCall

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
# Of queries and of keys without their mean. Less than this is nothing to a softmax, and the scales
# of both multiplied are still far from zero: the kernel multiplies masked scores, -inf, with that.
LEAST_SIZE = 2.0**-40


class Fp8Operands(NamedTuple):
    """q [B, L, H, D] and k [B, S, H, D] in e4m3; their product times `scale` [B, H] float32.

    `shift` [B, H, L] float32 is what every score of a query lacks: it leaves the output as it is
    and belongs to the lse.
    """

    q: Tensor
    k: Tensor
    scale: Tensor
    shift: Tensor


def quantize_qk(call: AttentionCall) -> Fp8Operands:
    """Round queries and keys to e4m3, one scale per head.

    The keys' mean is taken out first (arXiv 2411.10958 section 3.1): it adds the same number to
    every score of a query, which the softmax ignores, and it is what wastes the 8 bits.
    """
    q, k = call.q.float(), call.k.float()
    count: Tensor | int = call.keys
    if call.lengths is not None:
        padding = torch.arange(call.keys, device=k.device) >= call.lengths[:, None]
        k = k.masked_fill(padding[..., None, None], 0)
        count = call.lengths.clamp(min=1)[:, None, None, None]
    mean = k.sum(1, keepdim=True) / count
    k = k - mean
    if call.lengths is not None:
        k = k.masked_fill(padding[..., None, None], 0)
    q_scale = q.abs().amax((1, 3), keepdim=True).clamp(min=LEAST_SIZE) / FP8_MAX
    k_scale = k.abs().amax((1, 3), keepdim=True).clamp(min=LEAST_SIZE) / FP8_MAX
    return Fp8Operands(
        (q / q_scale).clamp(-FP8_MAX, FP8_MAX).to(FP8),
        (k / k_scale).clamp(-FP8_MAX, FP8_MAX).to(FP8),
        (q_scale * k_scale)[:, 0, :, 0].contiguous(),
        torch.einsum("blhd,bhd->bhl", q, mean[:, 0]) * call.scale,
    )
