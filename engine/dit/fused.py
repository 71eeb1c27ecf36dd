"""The work between the matrix products, each operation one pass over memory where it can be.

Under autograd and on a CPU these are the plain references of `visavis.kernels`. Without gradients
on a GPU they are single operators of the `visavis` namespace, opaque to `torch.compile`; on the
meta device too, so that counters see what a GPU would run.

Letters: B batch, N tokens, L keys, D model width, H heads, K head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from visavis.kernels import dit_ops
from visavis.kernels.modulate.reference import plain_gated_residual, plain_layer_norm
from visavis.kernels.norm_rope.reference import plain_rms_norm, plain_rms_norm_rotate


def fuses(x: Tensor) -> bool:
    """Whether the single operators are used for this tensor."""
    return not torch.is_grad_enabled() and x.device.type in ("cuda", "meta")


def wide(x: Tensor) -> Tensor:
    """float32, or float64 where that is given (tests of exactness)."""
    return x if x.dtype == torch.float64 else x.float()


def wide_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, in float32 or wider."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def layer_norm(
    x_BND: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """norm(x) * weight + bias in float32 -> [B, N, D] of `dtype`.

    `weight` and `bias` are [D], or [B, 1, D] where the noise level modulates (DiT's adaLN, arXiv
    2212.09748).
    """
    if fuses(x_BND):
        out: Tensor = torch.ops.visavis.layer_norm(x_BND, weight, bias, eps, dtype)
        return out
    return plain_layer_norm(x_BND, weight, bias, eps, dtype)


def rms_norm(x_BND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the whole width, before the split into heads; float32 inside."""
    if fuses(x_BND):
        out: Tensor = torch.ops.visavis.rms_norm(x_BND, weight_D, eps)
        return out
    return plain_rms_norm(x_BND, weight_D, eps)


def rms_norm_rotate(
    x_BND: Tensor, weight_D: Tensor, eps: float, heads: int, cos: Tensor, sin: Tensor
) -> Tensor:
    """`rms_norm`, then rotary positions (tables float32 [N, K / 2]) -> [B, N, H, K]."""
    if fuses(x_BND):
        out: Tensor = torch.ops.visavis.rms_norm_rotate(x_BND, weight_D, eps, heads, cos, sin)
        return out
    return plain_rms_norm_rotate(x_BND, weight_D, eps, heads, cos, sin)


def add_gated(x_BND: Tensor, h_BND: Tensor, gate_B1D: Tensor | None) -> Tensor:
    """x + h * gate in the dtype of x; no gate means 1."""
    if fuses(x_BND):
        out: Tensor = torch.ops.visavis.add_gated(x_BND, h_BND, gate_B1D)
        return out
    return plain_gated_residual(x_BND, h_BND, gate_B1D)


def add_gated_norm(
    x_BND: Tensor,
    h_BND: Tensor,
    gate_B1D: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`add_gated`, then `layer_norm` of its result -> both: the sum is read once, not twice."""
    if fuses(x_BND):
        out, normed = torch.ops.visavis.add_gated_norm(
            x_BND, h_BND, gate_B1D, weight, bias, eps, dtype
        )
        return out, normed
    out = plain_gated_residual(x_BND, h_BND, gate_B1D)
    return out, plain_layer_norm(out, weight, bias, eps, dtype)


def rms_norm_rotate_both(
    q_BND: Tensor,
    k_BND: Tensor,
    weight_q_D: Tensor,
    weight_k_D: Tensor,
    eps: float,
    heads: int,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rms_norm_rotate` of queries and keys of the same tokens."""
    if fuses(q_BND):
        q, k = torch.ops.visavis.rms_norm_rotate_both(
            q_BND, k_BND, weight_q_D, weight_k_D, eps, heads, cos, sin
        )
        return q, k
    return (
        plain_rms_norm_rotate(q_BND, weight_q_D, eps, heads, cos, sin),
        plain_rms_norm_rotate(k_BND, weight_k_D, eps, heads, cos, sin),
    )


def fused_attention(
    q_BNHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, bias_BL: Tensor | None
) -> Tensor:
    """The attention operator -> [B, N, H, K]; for tensors that `fuses`."""
    out: Tensor = torch.ops.visavis.attention(q_BNHK, k_BLHK, v_BLHK, bias_BL)
    return out


def fused_attention_with_lse(
    q_BNHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor
) -> tuple[Tensor, Tensor]:
    """The attention operator and the log-sum-exp of its scores, float32 [B, H, N]."""
    out, lse = torch.ops.visavis.attention_with_lse(q_BNHK, k_BLHK, v_BLHK)
    return out, lse


@torch.library.custom_op("visavis::layer_norm", mutates_args=())
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return dit_ops.layer_norm(x, weight, bias, eps, dtype)


@_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op("visavis::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return dit_ops.rms_norm(x, weight, eps)


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("visavis::rms_norm_rotate", mutates_args=())
def _rms_norm_rotate(
    x: Tensor, weight: Tensor, eps: float, heads: int, cos: Tensor, sin: Tensor
) -> Tensor:
    return dit_ops.rms_norm_rotate(x, weight, eps, heads, cos, sin)


@_rms_norm_rotate.register_fake
def _(x: Tensor, weight: Tensor, eps: float, heads: int, cos: Tensor, sin: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], heads, x.shape[-1] // heads)


@torch.library.custom_op("visavis::add_gated", mutates_args=())
def _add_gated(x: Tensor, h: Tensor, gate: Tensor | None) -> Tensor:
    return dit_ops.add_gated(x, h, gate)


@_add_gated.register_fake
def _(x: Tensor, h: Tensor, gate: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("visavis::add_gated_norm", mutates_args=())
def _add_gated_norm(
    x: Tensor,
    h: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return dit_ops.add_gated_norm(x, h, gate, weight, bias, eps, dtype)


@_add_gated_norm.register_fake
def _(
    x: Tensor,
    h: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op("visavis::rms_norm_rotate_both", mutates_args=())
def _rms_norm_rotate_both(
    q: Tensor,
    k: Tensor,
    weight_q: Tensor,
    weight_k: Tensor,
    eps: float,
    heads: int,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor]:
    return dit_ops.rms_norm_rotate_both(q, k, weight_q, weight_k, eps, heads, cos, sin)


@_rms_norm_rotate_both.register_fake
def _(
    q: Tensor,
    k: Tensor,
    weight_q: Tensor,
    weight_k: Tensor,
    eps: float,
    heads: int,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor]:
    shape = (*q.shape[:-1], heads, q.shape[-1] // heads)
    return q.new_empty(shape), k.new_empty(shape)


@torch.library.custom_op("visavis::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    return dit_ops.attention(q, k, v, bias)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("visavis::attention_with_lse", mutates_args=())
def _attention_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return dit_ops.attention_with_lse(q, k, v)


@_attention_with_lse.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    lse = q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    return q.new_empty(q.shape), lse


@register_flop_formula([torch.ops.visavis.attention, torch.ops.visavis.attention_with_lse])
def _attention_flops(
    q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    batch, queries, heads, size = q
    return int(4 * batch * queries * k[1] * heads * size)
