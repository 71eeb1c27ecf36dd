"""One attention call: its tensors, checked, and the properties that backends look at.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.kernels.choice import differentiates


class AttentionShapeError(ValueError):
    """Tensors that do not make one attention call, with the field, its value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """softmax(q kᵀ * scale + bias) v over the keys that a query may see.

    Args:
        q: [B, L, H, D].
        k: [B, S, H, D].
        v: [B, S, H, D].
        bias: [B, S] float32, added to every score of a key; -inf shuts it off. None: zeros.
        lengths: [B] integers, keys at or past it are padding (their contents are never used).
        block: block-causal: query i, which stands at position i + S - L, sees the keys of its own
            block of `block` positions and of those before. None: every key.
        scale: of the scores.
        return_lse: whether log(sum(exp(scores))) is wanted.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    lengths: Tensor | None
    block: int | None
    scale: float
    return_lse: bool

    @property
    def batch(self) -> int:
        return self.q.shape[0]

    @property
    def queries(self) -> int:
        return self.q.shape[1]

    @property
    def keys(self) -> int:
        return self.k.shape[1]

    @property
    def heads(self) -> int:
        return self.q.shape[2]

    @property
    def head_dim(self) -> int:
        return self.q.shape[3]

    @property
    def masked(self) -> bool:
        """Whether anything but the plain product decides a score."""
        return self.bias is not None or self.lengths is not None or self.block is not None

    @property
    def differentiates(self) -> bool:
        return differentiates(self.q, self.k, self.v, self.bias)

    def limits(self) -> Tensor:
        """How many keys, from the first, each query may see: integers [B or 1, L or 1]."""
        device = self.q.device
        limit = torch.full((1, 1), self.keys, device=device)
        if self.block is not None:
            positions = torch.arange(self.keys - self.queries, self.keys, device=device)
            limit = ((positions // self.block + 1) * self.block).clamp(max=self.keys)[None]
        if self.lengths is not None:
            limit = torch.minimum(limit, self.lengths[:, None])
        return limit

    def additive_mask(self) -> Tensor | None:
        """All conditions as one tensor to add to the scores, float32 [B or 1, 1, L or 1, S]."""
        if not self.masked:
            return None
        mask = None if self.bias is None else self.bias[:, None, None]
        if self.lengths is not None or self.block is not None:
            seen = torch.arange(self.keys, device=self.q.device) < self.limits()[..., None]
            hidden = torch.zeros((), device=self.q.device).where(seen, float("-inf"))[:, None]
            mask = hidden if mask is None else mask + hidden
        return mask


def attention_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    block: int | None,
    scale: float | None,
    return_lse: bool,
) -> AttentionCall:
    """Check the arguments of `attention` and fill in what was left out.

    Raises:
        AttentionShapeError: shapes, dtypes or options that do not fit together.
    """
    _check_tensors(q, k, v)
    batch, keys = k.shape[:2]
    if bias is not None:
        if bias.shape not in ((keys,), (batch, keys)):
            raise AttentionShapeError(
                f"bias_S has shape {tuple(bias.shape)}; {keys} keys in a batch of {batch} need "
                f"[{keys}] or [{batch}, {keys}]"
            )
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        bias = bias.to(dtype).expand(batch, keys)
    if lengths is not None:
        if lengths.shape != (batch,) or lengths.is_floating_point():
            raise AttentionShapeError(
                f"lengths is {lengths.dtype} {tuple(lengths.shape)}; needs integers [{batch}], "
                "how many keys of each sample are real"
            )
        lengths = lengths.to(q.device)
    if block is not None:
        if block < 1:
            raise AttentionShapeError(f"block={block}: must be at least 1 position")
        if q.shape[1] > keys:
            raise AttentionShapeError(
                f"block={block} with {q.shape[1]} queries and {keys} keys: the queries are the "
                "last positions of the keys; give at least as many keys"
            )
    if scale is None:
        scale = q.shape[-1] ** -0.5
    if not scale > 0:
        raise AttentionShapeError(f"scale={scale}: must be positive; negate q instead")
    return AttentionCall(
        q=q,
        k=k,
        v=v,
        bias=bias,
        lengths=lengths,
        block=block,
        scale=scale,
        return_lse=return_lse,
    )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (("q_BLHD", q), ("k_BSHD", k), ("v_BSHD", v)):
        if x.ndim != 4 or 0 in x.shape:
            raise AttentionShapeError(
                f"{name} has shape {tuple(x.shape)}; needs four axes, none empty: "
                "batch, tokens, heads, head size"
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise AttentionShapeError(
                f"{name} is {x.dtype} on {x.device}, q_BLHD {q.dtype} on {q.device}; "
                "cast them to one dtype on one device"
            )
    if k.shape != v.shape:
        raise AttentionShapeError(
            f"k_BSHD {tuple(k.shape)} and v_BSHD {tuple(v.shape)} differ; give each key a value"
        )
    if (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise AttentionShapeError(
            f"q_BLHD {tuple(q.shape)} and k_BSHD {tuple(k.shape)} differ in more than their "
            "tokens; batch, heads and head size must agree"
        )
