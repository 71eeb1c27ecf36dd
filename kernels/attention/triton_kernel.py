"""Flash attention forward for Triton (arXiv 2307.08691 algorithm 1, softmax in base 2).

One program owns a tile of queries and walks over the keys with a running maximum and sum. Programs
are persistent: each takes every n-th tile, so that the last wave is shared evenly. Keys that
every query of the tile may see are walked without a mask; only the rest pays for one.

Letters: B batch, L queries, S keys, H heads, D head size, M queries and N keys of a tile.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _load(source, b, h, start, stride_b, stride_l, stride_h, limit, ROWS: tl.constexpr,
          D: tl.constexpr, DESCRIPTORS: tl.constexpr, MASKED: tl.constexpr,
          CLEAN: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Rows start..start + ROWS of one head, [ROWS, D]; with MASKED those past `limit` are zeros.

    A descriptor gives zeros past the end of the tensor by itself; CLEAN is for a limit before it.
    """
    if DESCRIPTORS:
        x = source.load([b, start, h, 0]).reshape(ROWS, D)
        if CLEAN:
            x = tl.where((start + tl.arange(0, ROWS) < limit)[:, None], x, 0.0)
    else:
        # the tile's origin in 64 bits, the way within it in 32: fewer registers
        origin = b.to(tl.int64) * stride_b + h.to(tl.int64) * stride_h
        origin += tl.cast(start, tl.int64) * stride_l
        within = tl.arange(0, ROWS)[:, None] * stride_l + tl.arange(0, D)[None, :]
        if MASKED:
            seen = (start + tl.arange(0, ROWS) < limit)[:, None]
            x = tl.load(source + origin + within, mask=seen, other=0.0)
        else:
            x = tl.load(source + origin + within)
    if UPCAST:
        x = x.to(tl.float32)
    return x


@triton.jit
def _walk(acc, total, peak, q, k, v, bias, b, h, row_limit, start, end, scale,
          stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, S,
          N: tl.constexpr, D: tl.constexpr, STAGES: tl.constexpr, HAS_BIAS: tl.constexpr,
          MASKED: tl.constexpr, CLEAN: tl.constexpr, DESCRIPTORS: tl.constexpr,
          SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Take keys start..end into the running sums of a tile of queries."""
    for at in tl.range(start, end, N, num_stages=STAGES, warp_specialize=SPECIALIZE):
        k_ND = _load(k, b, h, at, stride_kb, stride_ks, stride_kh, end, N, D,
                     DESCRIPTORS, MASKED, CLEAN, UPCAST)  # fmt: skip
        scores = tl.dot(q, k_ND.T)
        columns = at + tl.arange(0, N)
        if HAS_BIAS:
            if MASKED:
                weight = tl.load(bias + b * S + columns, mask=columns < end, other=0.0)
            else:
                weight = tl.load(bias + b * S + columns)
            scores = scores * scale + (weight * LOG2_E)[None, :]
        if MASKED:
            scores = tl.where(columns[None, :] < row_limit[:, None], scores, float("-inf"))

        if HAS_BIAS:
            higher = tl.maximum(peak, tl.max(scores, 1))
        else:
            # scale is positive: it can wait until after the maximum, and joins the subtraction
            higher = tl.maximum(peak, tl.max(scores, 1) * scale)
        base = higher
        if HAS_BIAS or MASKED:
            # a row that has seen no key yet: -inf - -inf would be NaN
            base = tl.where(higher == float("-inf"), 0.0, higher)
        if HAS_BIAS:
            weights = tl.math.exp2(scores - base[:, None])
        else:
            weights = tl.math.exp2(scores * scale - base[:, None])
        shrink = tl.math.exp2(peak - base)

        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        v_ND = _load(v, b, h, at, stride_vb, stride_vs, stride_vh, end, N, D,
                     DESCRIPTORS, MASKED, CLEAN, UPCAST)  # fmt: skip
        acc = tl.dot(weights.to(v_ND.dtype), v_ND, acc)
        peak = higher
    return acc, total, peak


@triton.jit
def _tile(tile, q, k, v, bias, lengths, qk_scale, out, lse, scale,
          stride_qb, stride_ql, stride_qh, stride_kb, stride_ks, stride_kh,
          stride_vb, stride_vs, stride_vh, stride_ob, stride_ol, stride_oh,
          H, L, S, block, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
          STAGES: tl.constexpr, TAIL_STAGES: tl.constexpr,
          HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, HAS_BLOCK: tl.constexpr,
          HAS_LSE: tl.constexpr, FP8: tl.constexpr, DESCRIPTORS: tl.constexpr,
          SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """One tile of queries, from its loads to its stores."""
    # tiles of one head follow each other: its keys and values stay in the L2 cache
    tiles = tl.cdiv(L, M)
    head = tile // tiles
    first = (tile % tiles) * M
    b = head // H
    h = head % H

    rows = first + tl.arange(0, M)
    row_limit = tl.full([M], 0, tl.int32) + S
    tile_end = S
    full_end = S
    if HAS_LENGTHS:
        length = tl.minimum(tl.load(lengths + b), S)
        row_limit = tl.minimum(row_limit, length)
        tile_end = tl.minimum(tile_end, length)
        full_end = tl.minimum(full_end, length)
    if HAS_BLOCK:
        shift = S - L
        row_limit = tl.minimum(row_limit, ((rows + shift) // block + 1) * block)
        last = tl.minimum(first + M, L) - 1
        tile_end = tl.minimum(tile_end, ((last + shift) // block + 1) * block)
        full_end = tl.minimum(full_end, ((first + shift) // block + 1) * block)
    full_end = (full_end // N) * N

    if FP8:
        scale *= tl.load(qk_scale + head)
    scale *= LOG2_E
    q_MD = _load(q, b, h, first, stride_qb, stride_ql, stride_qh, L, M, D,
                 DESCRIPTORS, True, False, UPCAST)  # fmt: skip
    acc = tl.zeros([M, D], tl.float32)
    total = tl.zeros([M], tl.float32)
    peak = tl.full([M], float("-inf"), tl.float32)
    acc, total, peak = _walk(
        acc, total, peak, q_MD, k, v, bias, b, h, row_limit, 0, full_end, scale,
        stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, S,
        N, D, STAGES, HAS_BIAS, False, False, DESCRIPTORS, SPECIALIZE, UPCAST)  # fmt: skip
    acc, total, peak = _walk(
        acc, total, peak, q_MD, k, v, bias, b, h, row_limit, full_end, tile_end, scale,
        stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, S,
        N, D, TAIL_STAGES, HAS_BIAS, True, HAS_LENGTHS, DESCRIPTORS, False, UPCAST)  # fmt: skip

    none = total == 0.0
    acc = acc / tl.where(none, 1.0, total)[:, None]
    at = b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh
    at += rows.to(tl.int64)[:, None] * stride_ol + tl.arange(0, D)[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=(rows < L)[:, None])
    if HAS_LSE:
        value = (peak + tl.math.log2(tl.where(none, 1.0, total))) * LN_2
        value = tl.where(none, float("-inf"), value)
        tl.store(lse + head.to(tl.int64) * L + rows, value, mask=rows < L)


# one binary for every number of tokens: only strides and addresses are worth specialising
@triton.jit(do_not_specialize=["B", "H", "L", "S", "block"])
def attention_forward(q, k, v, bias, lengths, qk_scale, out, lse, scale,
                      stride_qb, stride_ql, stride_qh, stride_kb, stride_ks, stride_kh,
                      stride_vb, stride_vs, stride_vh, stride_ob, stride_ol, stride_oh,
                      B, H, L, S, block,
                      M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
                      STAGES: tl.constexpr, TAIL_STAGES: tl.constexpr,
                      HAS_BIAS: tl.constexpr,
                      HAS_LENGTHS: tl.constexpr, HAS_BLOCK: tl.constexpr,
                      HAS_LSE: tl.constexpr, FP8: tl.constexpr, DESCRIPTORS: tl.constexpr,
                      SPECIALIZE: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """softmax(q kᵀ * scale + bias) v for every tile of every head.

    q, k, v: pointers or, with DESCRIPTORS, tensor descriptors of [1, M or N, 1, D]; their last
    axis is dense. bias float32 [B, S]; lengths int32 [B]; qk_scale float32 [B, H], what fp8
    queries times keys must be multiplied by; lse float32 [B, H, L]. UPCAST computes in float32:
    Triton 3.9's interpreter gets products of bf16 and of fp8 wrong.
    """
    for tile in tl.range(tl.program_id(0), B * H * tl.cdiv(L, M), tl.num_programs(0)):
        _tile(tile, q, k, v, bias, lengths, qk_scale, out, lse, scale,
              stride_qb, stride_ql, stride_qh, stride_kb, stride_ks, stride_kh,
              stride_vb, stride_vs, stride_vh, stride_ob, stride_ol, stride_oh,
              H, L, S, block, M, N, D, STAGES, TAIL_STAGES, HAS_BIAS, HAS_LENGTHS, HAS_BLOCK,
              HAS_LSE, FP8, DESCRIPTORS, SPECIALIZE, UPCAST)  # fmt: skip
