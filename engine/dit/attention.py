"""The three attentions of a block: over the chunk, over text and image, over a frame's audio.

Letters: B batch, N visual tokens, L context tokens, D model width, H heads, K head size,
T latent frames, S visual tokens of one latent frame, P people.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.rope import rotate

AttentionImpl = Literal["sdpa", "plain"]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the whole width, before the split into heads; float32 inside."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        # rounded to the input's dtype before the weight, as the released model was trained
        out: Tensor = (wide * scale).to(x.dtype) * self.weight.to(x.dtype)
        return out


def attend(q_BNHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, impl: AttentionImpl) -> Tensor:
    """softmax(q kᵀ / √K) v, unmasked -> [B, N, H * K].

    `plain` keeps the scores in memory: slower than the fused kernel at length, faster to train
    at a few hundred tokens on a CPU.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BNHK, k_BLHK, v_BLHK))
    if impl == "plain":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    joined: Tensor = out.transpose(1, 2).flatten(2)
    return joined


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
        self, x_BND: Tensor, rope: tuple[Tensor, Tensor], person_masks_PS: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """-> (output [B, N, D], attention of each token to each person [B, P, N] or None)."""
        split = (self.heads, -1)
        q = rotate(self.norm_q(self.q(x_BND)).unflatten(-1, split), *rope)
        k = rotate(self.norm_k(self.k(x_BND)).unflatten(-1, split), *rope)
        v = self.v(x_BND).unflatten(-1, split)
        routing = None if person_masks_PS is None else person_attention(q, k, person_masks_PS)
        return self.o(attend(q, k, v, self.impl)), routing


@torch.no_grad()
def person_attention(q_BNHK: Tensor, k_BNHK: Tensor, masks_PS: Tensor) -> Tensor:
    """How much each token looks at each person's region of the first latent frame -> [B, P, N].

    Softmax over the first frame's S tokens, averaged over a region and over the heads
    (MultiTalk's label routing, arXiv 2505.22647 section 3.3).
    """
    q, k = q_BNHK.transpose(1, 2), k_BNHK[:, : masks_PS.shape[1]].transpose(1, 2)
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float().softmax(-1)
    masks = masks_PS.float()
    per_head = torch.einsum("bhns,ps->bhpn", weights, masks) / masks.sum(-1).view(1, 1, -1, 1)
    return per_head.mean(1)


class ContextKV(NamedTuple):
    """One layer's keys and values of the text and the image, [B, L, H, K] each, or None."""

    text_k: Tensor | None
    text_v: Tensor | None
    image_k: Tensor | None
    image_v: Tensor | None


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

    def project(self, text_BLD: Tensor | None, image_BLD: Tensor | None) -> ContextKV:
        """Keys and values, which do not depend on the noise: once per session."""
        split = (self.heads, -1)
        text_k = text_v = image_k = image_v = None
        if self.has_text and text_BLD is not None:
            text_k = self.norm_k(self.k(text_BLD)).unflatten(-1, split)
            text_v = self.v(text_BLD).unflatten(-1, split)
        if self.has_image and image_BLD is not None:
            image_k = self.norm_k_image(self.k_image(image_BLD)).unflatten(-1, split)
            image_v = self.v_image(image_BLD).unflatten(-1, split)
        return ContextKV(text_k, text_v, image_k, image_v)

    def forward(self, x_BND: Tensor, context: ContextKV) -> Tensor:
        q = self.norm_q(self.q(x_BND)).unflatten(-1, (self.heads, -1))
        seen = []
        if context.text_k is not None and context.text_v is not None:
            seen.append(attend(q, context.text_k, context.text_v, self.impl))
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
