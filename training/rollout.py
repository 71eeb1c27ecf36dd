"""Chunk after chunk on the model's own history, with the deployed sampler and hand-over.

Both stages use it: validation rolls out a few chunks, the student is trained on its last one.

Legend: B samples, N frames of a sequence, F frames of a chunk, T latent frames, m motion latents,
C channels, L layers, W audio window, h w control grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.layout_condition import layout_condition, layout_tokens
from visavis.engine.codec.motion_latents import LATENT_CHANNELS, pack_codes, unpack_codes
from visavis.engine.dit.sampler import RenoisingSampler, timesteps
from visavis.engine.plan import MOTION_FRAMES, latent_frames
from visavis.training.hearing import Hearing

Network = Callable[..., Tensor]
"""The transformer, compiled or not: (latents, times, cond, audio, image=) -> velocity."""


@dataclass(frozen=True, slots=True)
class ChunkConditions:
    """What one chunk is generated from: audio [B, F, 5, L, C] and layout [B, 16, h, w]."""

    audio: Tensor
    layout: Tensor

    @property
    def length(self) -> int:
        """Latent frames."""
        return latent_frames(self.audio.shape[1])

    def silent(self) -> "ChunkConditions":
        """The same without audio: zeros, as audio dropout gives."""
        return ChunkConditions(torch.zeros_like(self.audio), self.layout)

    def velocity(self, network: Network, latents_BCThw: Tensor, times_B: Tensor) -> Tensor:
        """The network's velocity under these conditions."""
        return network(
            latents_BCThw,
            times_B,
            layout_condition(self.layout, self.length),
            self.audio,
            image=layout_tokens(self.layout),
        )


def chunk_audio(hearing: Hearing, mel_BNLC: Tensor, start: int, frames: int) -> Tensor:
    """Audio windows [B, F, 5, L, C] of the chunk start .. start + frames of sequences whose log-mel
    begins `hearing.lead` frames before their first."""
    return hearing.windows(mel_BNLC[:, start : start + hearing.lead + frames])


def hand_over(latents_BCThw: Tensor) -> Tensor:
    """Motion latents [B, C, 2, h, w] of the next chunk: the last five frames' codes, repacked."""
    return pack_codes(unpack_codes(latents_BCThw)[:, -MOTION_FRAMES:])


def exit_early(
    velocity: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    motion_latents: Tensor,
    generator: torch.Generator,
    *,
    num_steps: int,
    exit_step: int,
) -> Tensor:
    """The clean latents predicted at one step of the deployed sampler, differentiable there alone.

    Equals `RenoisingSampler.sample` bit for bit at the last step; steps before `exit_step` run
    without gradient, and the motion slots never carry any (method section 1.9.1).
    """
    levels = timesteps(num_steps)
    slots = motion_latents.shape[2]
    latents = torch.randn(shape, generator=generator)
    latents[:, :, :slots] = motion_latents
    for step in range(exit_step + 1):
        with torch.set_grad_enabled(step == exit_step and torch.is_grad_enabled()):
            at = torch.full((shape[0],), levels[step])
            clean = latents - levels[step] * velocity(latents, at).float()
        if step == exit_step:
            break
        noise = torch.randn(shape, generator=generator)
        latents = (1 - levels[step + 1]) * clean + levels[step + 1] * noise
        latents[:, :, :slots] = motion_latents
    return torch.cat([motion_latents, clean[:, :, slots:]], dim=2)


@torch.no_grad()
def roll_out(
    network: Network,
    hearing: Hearing,
    mel_BNLC: Tensor,
    layout_B16hw: Tensor,
    motion_latents: Tensor,
    generator: torch.Generator,
    *,
    chunks: int,
    chunk_frames: int = 33,
    num_steps: int = 4,
) -> Tensor:
    """Codes [B, N, 6, h, w] of `chunks` chunks, as deployed; N = 5 + chunks (chunk_frames - 5).

    The first five frames are what the sequence starts from: the decoded first chunk's own for a
    single motion latent, the handed-over ones for two.
    """
    sampler = RenoisingSampler()
    new = chunk_frames - MOTION_FRAMES
    shape = (len(layout_B16hw), LATENT_CHANNELS, latent_frames(chunk_frames), 16, 16)
    pieces: list[Tensor] = []
    for chunk in range(chunks):
        conditions = ChunkConditions(
            chunk_audio(hearing, mel_BNLC, chunk * new, chunk_frames), layout_B16hw
        )
        latents = sampler.sample(
            lambda x, t, c=conditions: c.velocity(network, x, t),  # type: ignore[misc]
            shape,
            motion_latents,
            generator,
            num_steps=num_steps,
        )
        codes = unpack_codes(latents)
        pieces.append(codes if chunk == 0 else codes[:, MOTION_FRAMES:])
        motion_latents = hand_over(latents)
    return torch.cat(pieces, dim=1)
