"""The motion latents of a chunk decoded while the chunk is denoised.

They are known before: the sampler keeps them as they are. That takes the first two of nine latents
(16 % of the decoder's work) from between the last step and the first frame, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.wan_vae import WanDecoding, WanVAE


@dataclass(frozen=True, slots=True)
class EarlyFrames:
    """A decoding that has taken `count` latents, and their frames, [1, 3, n, H, W] each.

    On a GPU they may still be in the making: `decoding.join` comes before they are used.
    """

    count: int
    frames: list[Tensor]
    decoding: WanDecoding


@torch.inference_mode()
def decode_early(vae: WanVAE, motion_latents: Tensor) -> EarlyFrames:
    """Decode [C, T, h, w]; on a GPU without waiting for it, beside what is ordered next."""
    decoding = vae.begin()
    frames = decoding.push_beside(motion_latents[None])
    return EarlyFrames(motion_latents.shape[1], frames, decoding)


def decode_rest(early: EarlyFrames, latents_CTHW: Tensor) -> Iterator[Tensor]:
    """The early frames and those of the other latents, as `WanVAE.decode` gives them."""
    early.decoding.join()
    yield from early.frames
    yield from early.decoding.push(latents_CTHW[None, :, early.count :])
