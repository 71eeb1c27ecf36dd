"""The motion latents of a chunk decoded while the chunk is denoised.

They are known before: the sampler keeps them as they are. That takes the first two of nine latents
(16 % of the decoder's work) from between the last step and the first frame, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.wan_vae import WanDecoding, WanVAE


@dataclass(frozen=True, slots=True)
class EarlyFrames:
    """A decoding that has taken `count` latents, and their frames, [1, 3, n, H, W] each.

    `done` is set on CUDA: the frames are being made on a stream of their own.
    """

    count: int
    frames: list[Tensor]
    decoding: WanDecoding
    done: torch.cuda.Event | None


@torch.inference_mode()
def decode_early(
    vae: WanVAE, motion_latents: Tensor, stream: torch.cuda.Stream | None
) -> EarlyFrames:
    """Decode [C, T, h, w]; on CUDA without waiting for it, beside what the current stream does."""
    decoding = vae.begin()
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(vae.device))
    with torch.cuda.stream(stream) if stream is not None else nullcontext():
        frames = list(decoding.push(motion_latents[None]))
    done = stream.record_event() if stream is not None else None
    return EarlyFrames(motion_latents.shape[1], frames, decoding, done)


def decode_rest(early: EarlyFrames, latents_CTHW: Tensor) -> Iterator[Tensor]:
    """The early frames and those of the other latents, as `WanVAE.decode` gives them."""
    if early.done is not None:
        torch.cuda.current_stream(latents_CTHW.device).wait_event(early.done)
    yield from early.frames
    yield from early.decoding.push(latents_CTHW[None, :, early.count :])
