"""Runs the Triton kernels of layer norm, modulation and gated residual. Needs Triton.

Letters: B batch, N tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.kernels.modulate.triton_kernel import gated_residual_forward, layer_norm_forward
from visavis.kernels.rows import on_device, padded_width, warps


def layer_norm(
    x_BNW: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """As `api.layer_norm`."""
    x, width = x_BNW.contiguous(), x_BNW.shape[-1]
    weight, stride_weight = _by_sample(weight, width)
    bias, stride_bias = _by_sample(bias, width)
    out = torch.empty_like(x, dtype=dtype)
    columns = padded_width(width)
    with on_device(x):
        layer_norm_forward[(x.numel() // width,)](
            x,
            weight,
            bias,
            out,
            x.shape[-2],
            width,
            eps,
            stride_weight,
            stride_bias,
            COLUMNS=columns,
            num_warps=warps(columns),
        )
    return out


def gated_residual(x_BNW: Tensor, h_BNW: Tensor, gate: Tensor | None) -> Tensor:
    """As `api.gated_residual`."""
    return _residual(x_BNW, h_BNW, gate, None, None, 0.0, x_BNW.dtype)[0]


def gated_residual_layer_norm(
    x_BNW: Tensor,
    h_BNW: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As `api.gated_residual_layer_norm`."""
    return _residual(x_BNW, h_BNW, gate, weight, bias, eps, dtype)


def _residual(
    x_BNW: Tensor,
    h_BNW: Tensor,
    gate: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    x, h, width = x_BNW.contiguous(), h_BNW.contiguous(), x_BNW.shape[-1]
    out = torch.empty_like(x)
    # what is absent is never read or written
    normed = out if weight is None else torch.empty_like(x, dtype=dtype)
    gate_W, stride_gate = (out, 0) if gate is None else _by_sample(gate, width)
    weight_W, stride_weight = (out, 0) if weight is None else _by_sample(weight, width)
    bias_W, stride_bias = (out, 0) if bias is None else _by_sample(bias, width)
    columns = padded_width(width)
    with on_device(x):
        gated_residual_forward[(x.numel() // width,)](
            x,
            h,
            gate_W,
            out,
            weight_W,
            bias_W,
            normed,
            x.shape[-2],
            width,
            eps,
            stride_gate,
            stride_weight,
            stride_bias,
            HAS_GATE=gate is not None,
            NORMALIZES=weight is not None,
            COLUMNS=columns,
            num_warps=warps(columns),
        )
    return out, normed


def _by_sample(x: Tensor, width: int) -> tuple[Tensor, int]:
    """[W], [1, 1, W] or [B, 1, W] with a dense last axis, and the elements between samples."""
    x = x.reshape(-1, width).contiguous()
    return x, 0 if x.shape[0] == 1 else width
