"""Layer norm, modulation and gated residual for Triton: a row is read once and written once.

Letters: W width of a row, COLUMNS the power of two that holds it.
"""

import triton
import triton.language as tl


@triton.jit
def _normalized(row, columns, W, eps):
    """(row - mean) / √(var + eps), float32; the variance from the centred row: no cancellation."""
    mean = tl.sum(row, 0) / W
    centred = tl.where(columns < W, row - mean, 0.0)
    return centred / tl.sqrt_rn(tl.sum(centred * centred, 0) / W + eps)


@triton.jit
def _affine(normed, weight, bias, sample, columns, W, stride_weight, stride_bias):
    """Strides are 0 where one weight serves every sample."""
    seen = columns < W
    w = tl.load(weight + sample * stride_weight + columns, mask=seen, other=0.0).to(tl.float32)
    b = tl.load(bias + sample * stride_bias + columns, mask=seen, other=0.0).to(tl.float32)
    return normed * w + b


@triton.jit
def layer_norm_forward(x, weight, bias, out, tokens, W, eps, stride_weight, stride_bias,
                       COLUMNS: tl.constexpr):  # fmt: skip
    """out = norm(x) * weight + bias; row r belongs to sample r // tokens."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    value = tl.load(x + row * W + columns, mask=columns < W, other=0.0).to(tl.float32)
    y = _normalized(value, columns, W, eps)
    y = _affine(y, weight, bias, row // tokens, columns, W, stride_weight, stride_bias)
    tl.store(out + row * W + columns, y.to(out.dtype.element_ty), mask=columns < W)


@triton.jit
def gated_residual_forward(x, h, gate, out, weight, bias, normed, tokens, W, eps, stride_gate,
                           stride_weight, stride_bias, HAS_GATE: tl.constexpr,
                           NORMALIZES: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """out = x + h * gate and, with NORMALIZES, normed = norm(out) * weight + bias."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    seen = columns < W
    dtype = out.dtype.element_ty
    value = tl.load(x + row * W + columns, mask=seen, other=0.0).to(tl.float32)
    added = tl.load(h + row * W + columns, mask=seen, other=0.0)
    sample = row // tokens
    if HAS_GATE:
        g = tl.load(gate + sample * stride_gate + columns, mask=seen, other=0.0)
        value += added.to(tl.float32) * g.to(tl.float32)
    else:
        value += added.to(dtype).to(tl.float32)
    rounded = value.to(dtype)
    tl.store(out + row * W + columns, rounded, mask=seen)
    if NORMALIZES:
        y = _normalized(rounded.to(tl.float32), columns, W, eps)
        y = _affine(y, weight, bias, sample, columns, W, stride_weight, stride_bias)
        tl.store(normed + row * W + columns, y.to(normed.dtype.element_ty), mask=seen)
