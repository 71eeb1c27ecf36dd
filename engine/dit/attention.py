"""The three attentions of a block: over the chunk, over text and image, over a frame's audio.

Letters: B batch, N visual tokens, L context tokens, D model width, H heads, K head size,
T latent frames, S visual tokens of one latent frame, P people.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import (
    fused_attention,
    fuses,
    rms_norm,
    rms_norm_rotate,
    rms_norm_rotate_both,
    wide_softmax,
)
from visavis.engine.dit.layout import TokenLayout

AttentionImpl = Literal["sdpa", "plain"]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the whole width, before the split into heads; float32 inside."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def attend(
    q_BNHK: Tensor,
    k_BLHK: Tensor,
    v_BLHK: Tensor,
    impl: AttentionImpl,
    bias_BL: Tensor | None = None,
) -> Tensor:
    """softmax(q kᵀ / √K + bias) v, unmasked -> [B, N, H * K].

    `plain` keeps the scores in memory: slower than the fused kernel at length, faster to train
    at a few hundred tokens on a CPU. `bias` is added to a key's every score.
    """
    if fuses(q_BNHK):
        return fused_attention(q_BNHK, k_BLHK, v_BLHK, bias_BL).flatten(2)
    q, k, v = (x.transpose(1, 2) for x in (q_BNHK, k_BLHK, v_BLHK))
    bias = None if bias_BL is None else bias_BL[:, None, None].to(q.dtype)
    if impl == "plain":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        out = wide_softmax(scores).to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    joined: Tensor = out.transpose(1, 2).flatten(2)
    return joined


class AttentionExchange(Protocol):
    """The other processes, seen from one that holds some of the tokens (`engine/parallel`)."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    def attend(
        self,
        q_BNHK: Tensor,
        k_BNHK: Tensor,
        v_BNHK: Tensor,
        layout: TokenLayout,
        person_masks_PS: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `attend` over every process's tokens -> ([B, N, H * K], `person_attention` or None)"""
        ...

    def extremes(self, routing_BPN: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Least and greatest over every process's tokens, [B, P, 1] each."""
        ...

    def gather(self, x_BNC: Tensor, layout: TokenLayout) -> Tensor:
        """Every process's rows in order, without padding: [B, tokens, C]."""
        ...


class Share(NamedTuple):
    """The part of the tokens that this process holds, and the way to the others."""

    layout: TokenLayout
    exchange: AttentionExchange


class SelfAttention(nn.Module):
    """Full attention over every token of the chunk, with 3D rotary positions."""

    def __init__(self, config: DiTConfig, impl: AttentionImpl) -> None:
        super().__init__()
        self.heads, self.impl = config.num_heads, impl
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)

    def forward(
        self,
        x_BND: Tensor,
        rope: tuple[Tensor, Tensor],
        person_masks_PS: Tensor | None = None,
        *,
        skip: int = 0,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """-> (output [B, N - skip, D], attention of each token to each person [B, P, N] or None).

        The first `skip` tokens are seen by the others and get no output themselves.
        """
        q, k = self._placed(x_BND, rope, skip)
        v = self.v(x_BND).unflatten(-1, (self.heads, -1))
        if share is not None:
            out, routing = share.exchange.attend(q, k, v, share.layout, person_masks_PS)
            return self.o(out), routing
        routing = None if person_masks_PS is None else person_attention(q, k, person_masks_PS)
        return self.o(attend(q, k, v, self.impl)), routing

    def _placed(
        self, x_BND: Tensor, rope: tuple[Tensor, Tensor], skip: int
    ) -> tuple[Tensor, Tensor]:
        if not skip:
            norms = self.norm_q.weight, self.norm_k.weight, self.norm_q.eps
            return rms_norm_rotate_both(self.q(x_BND), self.k(x_BND), *norms, self.heads, *rope)
        q = self._place(self.norm_q, self.q(x_BND[:, skip:]), rope[0][skip:], rope[1][skip:])
        return q, self._place(self.norm_k, self.k(x_BND), *rope)

    def _place(self, norm: RMSNorm, x_BND: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rms_norm_rotate(x_BND, norm.weight, norm.eps, self.heads, cos, sin)


@torch.no_grad()
def person_attention(q_BNHK: Tensor, k_BNHK: Tensor, masks_PS: Tensor) -> Tensor:
    """How much each token looks at each person's region of the first latent frame -> [B, P, N].

    Softmax over the first frame's S tokens, averaged over a region and over the heads
    (MultiTalk's label routing, arXiv 2505.22647 section 3.3).
    """
    q, k = q_BNHK.transpose(1, 2), k_BNHK[:, : masks_PS.shape[1]].transpose(1, 2)
    weights = wide_softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2))
    masks = masks_PS.to(weights.dtype)
    per_head = torch.einsum("bhns,ps->bhpn", weights, masks) / masks.sum(-1).view(1, 1, -1, 1)
    return per_head.mean(1)


class ContextKV(NamedTuple):
    """One layer's keys and values of the text and the image, [B, L, H, K] each, or None.

    `text_bias` [B, L] is added to the scores of the text: it weighs keys that stand for several.
    """

    text_k: Tensor | None
    text_v: Tensor | None
    image_k: Tensor | None
    image_v: Tensor | None
    text_bias: Tensor | None = None


class CrossAttention(nn.Module):
    """Decoupled attention over text and image: two softmaxes, one query, outputs added."""

    def __init__(self, config: DiTConfig, impl: AttentionImpl) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.impl = config.num_heads, impl
        self.q = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, config.eps)
        self.has_text, self.has_image = config.has_text, config.has_image
        if self.has_text:
            self.k = nn.Linear(dim, dim)
            self.v = nn.Linear(dim, dim)
            self.norm_k = RMSNorm(dim, config.eps)
        if self.has_image:
            self.k_image = nn.Linear(dim, dim)
            self.v_image = nn.Linear(dim, dim)
            self.norm_k_image = RMSNorm(dim, config.eps)

    def project(
        self,
        text_BLD: Tensor | None,
        image_BLD: Tensor | None,
        text_bias_BL: Tensor | None = None,
    ) -> ContextKV:
        """Keys and values, which do not depend on the noise: once per session."""
        split = (self.heads, -1)
        text_k = text_v = image_k = image_v = None
        if self.has_text and text_BLD is not None:
            text_k = self.norm_k(self.k(text_BLD)).unflatten(-1, split)
            text_v = self.v(text_BLD).unflatten(-1, split)
        if self.has_image and image_BLD is not None:
            image_k = self.norm_k_image(self.k_image(image_BLD)).unflatten(-1, split)
            image_v = self.v_image(image_BLD).unflatten(-1, split)
        return ContextKV(text_k, text_v, image_k, image_v, text_bias_BL)

    def forward(self, x_BND: Tensor, context: ContextKV) -> Tensor:
        q = self.norm_q(self.q(x_BND)).unflatten(-1, (self.heads, -1))
        seen = []
        if context.text_k is not None and context.text_v is not None:
            seen.append(attend(q, context.text_k, context.text_v, self.impl, context.text_bias))
        if context.image_k is not None and context.image_v is not None:
            seen.append(attend(q, context.image_k, context.image_v, self.impl))
        out: Tensor = self.o(seen[0] if len(seen) == 1 else seen[0] + seen[1])
        return out


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out
