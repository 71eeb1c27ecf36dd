"""Runs the Triton kernels of RMS norm and rotary positions. Needs Triton.

Letters: B batch, N tokens, W width of all heads, H heads, D head size, R = D / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.kernels.choice import tell_fallback
from visavis.kernels.norm_rope.reference import plain_rms_norm_rotate
from visavis.kernels.norm_rope.triton_kernel import rms_norm_forward, rms_norm_rotate_forward
from visavis.kernels.rows import on_device, padded_width, warps


def rms_norm(x_BNW: Tensor, weight_W: Tensor, eps: float) -> Tensor:
    """As `api.rms_norm`."""
    x, width = x_BNW.contiguous(), x_BNW.shape[-1]
    out = torch.empty_like(x)
    columns = padded_width(width)
    with on_device(x):
        rms_norm_forward[(x.numel() // width,)](
            x, weight_W, out, width, eps, COLUMNS=columns, num_warps=warps(columns)
        )
    return out


def rms_norm_rotate(
    x_BNW: Tensor, weight_W: Tensor, eps: float, heads: int, cos_NR: Tensor, sin_NR: Tensor
) -> Tensor:
    """As `api.rms_norm_rotate`."""
    if not _has_kernel("rms_norm_rotate", x_BNW, heads, cos_NR):
        return plain_rms_norm_rotate(x_BNW, weight_W, eps, heads, cos_NR, sin_NR)
    return _launch(x_BNW, None, weight_W, weight_W, eps, heads, cos_NR, sin_NR)[0]


def rms_norm_rope(
    q_BNW: Tensor,
    k_BNW: Tensor,
    weight_q_W: Tensor,
    weight_k_W: Tensor,
    eps: float,
    heads: int,
    cos_NR: Tensor,
    sin_NR: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `api.rms_norm_rope`."""
    if not _has_kernel("rms_norm_rope", q_BNW, heads, cos_NR):
        return (
            plain_rms_norm_rotate(q_BNW, weight_q_W, eps, heads, cos_NR, sin_NR),
            plain_rms_norm_rotate(k_BNW, weight_k_W, eps, heads, cos_NR, sin_NR),
        )
    q, k = _launch(q_BNW, k_BNW, weight_q_W, weight_k_W, eps, heads, cos_NR, sin_NR)
    return q, k


def _has_kernel(operation: str, x_BNW: Tensor, heads: int, cos_NR: Tensor) -> bool:
    """A head size that is a power of two, and one table for all samples; said if not."""
    size = x_BNW.shape[-1] // heads
    if size < 4 or size & (size - 1):
        reason = f"it is written for head sizes that are powers of two from 4 on, not {size}"
    elif cos_NR.ndim != 2:
        reason = f"it takes one table for all samples, not one of {cos_NR.ndim} axes"
    else:
        return True
    tell_fallback(operation, "reference", (("triton", reason),))
    return False


def _launch(
    q_BNW: Tensor,
    k_BNW: Tensor | None,
    weight_q_W: Tensor,
    weight_k_W: Tensor,
    eps: float,
    heads: int,
    cos_NR: Tensor,
    sin_NR: Tensor,
) -> tuple[Tensor, Tensor]:
    width, tokens = q_BNW.shape[-1], q_BNW.shape[-2]
    size = width // heads
    q = q_BNW.contiguous()
    k = q if k_BNW is None else k_BNW.contiguous()
    out_q = torch.empty_like(q)
    out_k = out_q if k_BNW is None else torch.empty_like(k)
    padded = padded_width(heads) * size
    with on_device(q):
        rms_norm_rotate_forward[(q.numel() // width,)](
            q,
            k,
            weight_q_W,
            weight_k_W,
            out_q,
            out_k,
            cos_NR.float().contiguous(),
            sin_NR.float().contiguous(),
            tokens,
            width,
            eps,
            H=padded // size,
            D=size,
            BOTH=k_BNW is not None,
            num_warps=warps(padded),
        )
    shape = (*q.shape[:-1], heads, size)
    return out_q.view(shape), out_k.view(shape)
