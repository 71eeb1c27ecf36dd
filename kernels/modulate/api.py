"""Layer norm, modulation and the gated residual: Triton on a GPU, else the reference.

Letters: B batch, N tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.kernels.choice import triton_or_reference
from visavis.kernels.modulate.reference import plain_gated_residual, plain_layer_norm


def layer_norm(
    x_BNW: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """(x - mean) / √(var + eps) * weight + bias in float32 -> [B, N, W] of `dtype`.

    Args:
        weight: [W], or [B, 1, W] to modulate each sample in its own way; `bias` likewise.
    """

    def fast() -> Tensor:
        import visavis.kernels.modulate.launch as launch  # needs Triton

        return launch.layer_norm(x_BNW, weight, bias, eps, dtype)

    def plain() -> Tensor:
        return plain_layer_norm(x_BNW, weight, bias, eps, dtype)

    return triton_or_reference("layer_norm", (x_BNW, weight, bias), fast, plain)


def layer_norm_modulate(
    x_BNW: Tensor,
    scale_B1W: Tensor,
    shift_B1W: Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`layer_norm` with weight 1 + scale and bias shift; `dtype` is that of x unless given."""
    return layer_norm(x_BNW, 1 + scale_B1W, shift_B1W, eps, dtype or x_BNW.dtype)


def gated_residual(x_BNW: Tensor, h_BNW: Tensor, gate: Tensor | None) -> Tensor:
    """x + h * gate -> [B, N, W] in the dtype of x; the gate [B, 1, W] or [W], None means 1."""

    def fast() -> Tensor:
        import visavis.kernels.modulate.launch as launch  # needs Triton

        return launch.gated_residual(x_BNW, h_BNW, gate)

    def plain() -> Tensor:
        return plain_gated_residual(x_BNW, h_BNW, gate)

    return triton_or_reference("gated_residual", (x_BNW, h_BNW, gate), fast, plain)


def gated_residual_layer_norm(
    x_BNW: Tensor,
    h_BNW: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`gated_residual`, then `layer_norm` of its result -> both.

    One pass instead of two: the sum is read from registers, four passes over memory for five.
    """

    def fast() -> tuple[Tensor, Tensor]:
        import visavis.kernels.modulate.launch as launch  # needs Triton

        return launch.gated_residual_layer_norm(x_BNW, h_BNW, gate, weight, bias, eps, dtype)

    def plain() -> tuple[Tensor, Tensor]:
        out = plain_gated_residual(x_BNW, h_BNW, gate)
        return out, plain_layer_norm(out, weight, bias, eps, dtype)

    tensors = x_BNW, h_BNW, gate, weight, bias
    return triton_or_reference("gated_residual_layer_norm", tensors, fast, plain)
