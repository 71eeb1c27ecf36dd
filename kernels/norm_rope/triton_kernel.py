"""RMS norm and rotary positions for Triton: one program a token, a row read and written once.

Letters: W width of all heads, H heads (padded to a power of two), D head size.
"""

import triton
import triton.language as tl


@triton.jit
def _normalized(x, weight, at, columns, W, eps, COLUMNS: tl.constexpr):  # fmt: skip
    """x / rms(x), rounded to its dtype, times the weight, rounded again: float32 [COLUMNS]."""
    dtype = x.dtype.element_ty
    row = tl.load(x + at + columns, mask=columns < W, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(row * row, 0) / W + eps)
    w = tl.load(weight + columns, mask=columns < W, other=0.0).to(dtype)
    y = (row * scale).to(dtype).to(tl.float32) * w.to(tl.float32)
    return y.to(dtype).to(tl.float32)


@triton.jit
def rms_norm_forward(x, weight, out, W, eps, COLUMNS: tl.constexpr):
    """out = x / rms(x) * weight for rows of W."""
    at = tl.program_id(0).to(tl.int64) * W
    columns = tl.arange(0, COLUMNS)
    y = _normalized(x, weight, at, columns, W, eps, COLUMNS)
    tl.store(out + at + columns, y.to(out.dtype.element_ty), mask=columns < W)


@triton.jit
def _rotated(x, weight, out, at, cos, sin, W, eps, H: tl.constexpr, D: tl.constexpr):
    """One row: normalized, each head's neighbouring channels turned, stored."""
    columns = tl.arange(0, H * D)
    y = _normalized(x, weight, at, columns, W, eps, H * D)
    even, odd = tl.split(y.reshape(H, D // 2, 2))
    turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    turned = turned.reshape(H * D)
    tl.store(out + at + columns, turned.to(out.dtype.element_ty), mask=columns < W)


@triton.jit
def rms_norm_rotate_forward(q, k, weight_q, weight_k, out_q, out_k, cos, sin, tokens, W, eps,
                            H: tl.constexpr, D: tl.constexpr, BOTH: tl.constexpr):  # fmt: skip
    """Queries and, with BOTH, keys of token `program % tokens`: rows of W, tables [tokens, D/2]."""
    row = tl.program_id(0).to(tl.int64)
    pairs = (row % tokens) * (D // 2) + tl.arange(0, D // 2)
    cos_D = tl.load(cos + pairs)[None, :]
    sin_D = tl.load(sin + pairs)[None, :]
    _rotated(q, weight_q, out_q, row * W, cos_D, sin_D, W, eps, H, D)
    if BOTH:
        _rotated(k, weight_k, out_k, row * W, cos_D, sin_D, W, eps, H, D)
