"""`FlashTalkDiT.forward` block by block: no weight of a block is used outside of its turn.

Inference prepares the conditions of all blocks first, since they stay the same for many steps.
Training uses a velocity once, and its weights may lie scattered over many processes and be gathered
for each block's turn alone; then its activations may be thrown away, too, and computed again when
the gradient comes by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visavis.engine.dit.block import Block
from visavis.engine.dit.layout import TokenLayout
from visavis.engine.dit.patches import token_grid

if TYPE_CHECKING:
    from visavis.engine.dit.model import FlashTalkDiT


class LatePass:
    """Computes `FlashTalkDiT.forward`; `recompute`: activations inside blocks are not kept."""

    def __init__(self, *, recompute: bool) -> None:
        self.recompute = recompute

    def __call__(
        self,
        model: FlashTalkDiT,
        latents_BCTHW: Tensor,
        timesteps_B: Tensor,
        cond_latents_BCTHW: Tensor,
        audio_BFWLC: Tensor,
        text: Tensor | None,
        image: Tensor | None,
    ) -> Tensor:
        """The velocity, to rounding that of a model without this pass.

        Raises:
            ValueError: shapes that do not fit each other or the model's configuration.
        """
        model.check_context(text, image)
        tokens_BTAC = model.audio_adapter(audio_BFWLC)
        frames, rows, columns = token_grid(
            model.config, latents_BCTHW, cond_latents_BCTHW, tokens_BTAC.shape[1]
        )
        embedding_BD, time_B6D = model.time_embedding(timesteps_B)
        text_BLD = image_BLD = bias_BL = None
        if model.text_embedding is not None and text is not None:
            text_BLD, bias_BL = model.text_embedding(text), model.text_embedding.bias(text)
        if model.image_embedding is not None:
            image_BLD = model.image_embedding(image)
        layout = TokenLayout.whole(frames, rows * columns)
        x_BND = model.embed(latents_BCTHW, cond_latents_BCTHW, layout)
        rope = model.rope(frames, rows, columns)
        for block in model.blocks:
            assert isinstance(block, Block)
            arguments = (x_BND, time_B6D, rope, text_BLD, image_BLD, bias_BL, tokens_BTAC)
            if self.recompute and torch.is_grad_enabled():
                x_BND = checkpoint(
                    block.whole, *arguments, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BND = block.whole(*arguments)
        out_BNP = model.head(x_BND, model.head.steer(embedding_BD))
        return model.velocity_from(out_BNP, latents_BCTHW, timesteps_B)
