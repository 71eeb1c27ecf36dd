"""Attention that looks no further than its own latent frame: the rival that the paper gives up.

Only training compares the two; what is deployed stays bidirectional, so this lives outside the
engine. Weights are those of the full attention, under the same names.

Letters: B batch, N tokens = T * S, S tokens of a latent frame, D model width.
"""

import torch
from torch import Tensor

from visavis.engine.dit.attention import SelfAttention, Share
from visavis.engine.dit.block import Block
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import wide_softmax
from visavis.engine.dit.model import FlashTalkDiT


class FrameCausalAttention(SelfAttention):
    """A latent frame's tokens see those of the same and of earlier frames (block-causal)."""

    def __init__(self, config: DiTConfig, frame_tokens: int) -> None:
        super().__init__(config, "plain")
        self.frame_tokens = frame_tokens

    def forward(
        self,
        x_BND: Tensor,
        rope: tuple[Tensor, Tensor],
        person_masks_PS: Tensor | None = None,
        *,
        skip: int = 0,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `SelfAttention`, for one person and one process.

        Raises ValueError for what only the deployed attention can do.
        """
        if person_masks_PS is not None or share is not None or skip:
            raise ValueError("causal attention is for training: no masks, no skip, one process")
        q = self._place(self.norm_q, self.q(x_BND), *rope).transpose(1, 2)
        k = self._place(self.norm_k, self.k(x_BND), *rope).transpose(1, 2)
        v = self.v(x_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        frame = torch.arange(x_BND.shape[1]) // self.frame_tokens
        scores = scores.masked_fill(frame[None] > frame[:, None], float("-inf"))
        out = wide_softmax(scores).to(v.dtype) @ v
        return self.o(out.transpose(1, 2).flatten(2)), None


def make_causal(model: FlashTalkDiT, latent_size: tuple[int, int]) -> FlashTalkDiT:
    """Replace the model's self-attention by the causal one, with the same weights; -> the model."""
    for block in model.blocks:
        if isinstance(block, Block):
            causal = FrameCausalAttention(model.config, model.config.frame_tokens(latent_size))
            causal.load_state_dict(block.self_attention.state_dict())
            block.self_attention = causal
    return model
