"""Chunk after chunk on the model's own history, with the deployed sampler and hand-over of codes.

Both stages use it: validation rolls out a few chunks, the student is trained on its last one.

Legend: B samples, N frames of a sequence, F frames of a chunk, T latent frames, m motion latents,
C channels, L layers, W audio window, h w control grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from visavis.engine.codec.continuation import join_motion
from visavis.engine.codec.layout_condition import layout_condition, layout_tokens
from visavis.engine.codec.motion_latents import LATENT_CHANNELS, pack_codes, unpack_codes
from visavis.engine.dit.sampler import RenoisingSampler, timesteps
from visavis.engine.plan import MOTION_FRAMES, latent_frames

SamplerName = Literal["renoise", "euler"]
Network = Callable[..., Tensor]
"""The transformer, compiled or not: (latents, times, cond, audio, image=) -> velocity."""


class Conditions(Protocol):
    """What one chunk is generated from, whatever the model."""

    def silent(self) -> "Conditions":
        """With neither audio nor text: what guidance starts from."""
        ...

    def wordless(self) -> "Conditions | None":
        """Without text; None where the model has none."""
        ...

    def velocity(self, network: Network, latents_BCThw: Tensor, times_B: Tensor) -> Tensor:
        """The network's velocity under these conditions."""
        ...


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

    def wordless(self) -> None:
        """The embedded model reads nothing."""
        return None

    def velocity(self, network: Network, latents_BCThw: Tensor, times_B: Tensor) -> Tensor:
        """The network's velocity under these conditions."""
        return network(
            latents_BCThw,
            times_B,
            layout_condition(self.layout, self.length),
            self.audio,
            image=layout_tokens(self.layout),
        )


class ChunkHearing(Protocol):
    """What is heard of one chunk of a sequence: `Hearing`, or one that was prepared."""

    def chunk(self, mel_BNLC: Tensor, start: int, frames: int) -> Tensor:
        """Audio windows [B, F, 5, L, C] of the frames start .. start + frames."""
        ...


def hand_over(latents_BCThw: Tensor) -> Tensor:
    """Motion latents [B, C, 2, h, w] of the next chunk: the last five frames' codes, repacked."""
    return pack_codes(unpack_codes(latents_BCThw)[:, -MOTION_FRAMES:])


def joined(latents_BCThw: Tensor, motion_slots: int) -> Tensor:
    """The chunks as the deployed codec shows them and hands them on, joined to those before."""
    return torch.stack([join_motion(chunk, motion_slots) for chunk in latents_BCThw])


def leave_at(
    velocity: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    motion_latents: Tensor,
    generator: torch.Generator,
    *,
    num_steps: int,
    exit_step: int,
    sampler: SamplerName = "renoise",
) -> Tensor:
    """The clean latents predicted at one step, in the motion slots too; differentiable there alone.

    Steps before `exit_step` run without gradient (method section 1.9.1). "renoise" is the deployed
    sampler; "euler" follows the velocity, x <- x + (t' - t) v (section 1.6).
    """
    levels = timesteps(num_steps)
    slots = motion_latents.shape[2]
    device = generator.device
    latents = torch.randn(shape, generator=generator, device=device)
    latents[:, :, :slots] = motion_latents
    for step in range(exit_step + 1):
        with torch.set_grad_enabled(step == exit_step and torch.is_grad_enabled()):
            at = torch.full((shape[0],), levels[step], device=device)
            flow = velocity(latents, at).float()
            clean = latents - levels[step] * flow
        if step == exit_step:
            break
        if sampler == "euler":
            latents = latents + (levels[step + 1] - levels[step]) * flow
        else:
            noise = torch.randn(shape, generator=generator, device=device)
            latents = (1 - levels[step + 1]) * clean + levels[step + 1] * noise
        latents[:, :, :slots] = motion_latents
    return clean


def exit_early(
    velocity: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    motion_latents: Tensor,
    generator: torch.Generator,
    *,
    num_steps: int,
    exit_step: int,
    sampler: SamplerName = "renoise",
) -> Tensor:
    """`leave_at` with the motion latents in their slots, which never carry gradient.

    With re-noising it equals `RenoisingSampler.sample` bit for bit at the last step.
    """
    clean = leave_at(
        velocity,
        shape,
        motion_latents,
        generator,
        num_steps=num_steps,
        exit_step=exit_step,
        sampler=sampler,
    )
    return with_motion(clean, motion_latents)


def with_motion(clean_BCThw: Tensor, motion_latents: Tensor) -> Tensor:
    """The chunk that goes on: generated slots after the motion latents."""
    return torch.cat([motion_latents, clean_BCThw[:, :, motion_latents.shape[2] :]], dim=2)


@torch.no_grad()
def roll_out(
    network: Network,
    hearing: ChunkHearing,
    mel_BNLC: Tensor,
    layout_B16hw: Tensor,
    motion_latents: Tensor,
    generator: torch.Generator,
    *,
    chunks: int,
    chunk_frames: int = 33,
    num_steps: int = 4,
    join: bool = True,
) -> Tensor:
    """Codes [B, N, 6, h, w] of `chunks` chunks; N = 5 + chunks (chunk_frames - 5).

    As deployed, or without `join` as sampled. The first five frames are what the sequence starts
    from: the decoded first chunk's own for a single motion latent, the handed-over ones for two.
    """
    sampler = RenoisingSampler()
    new = chunk_frames - MOTION_FRAMES
    shape = (len(layout_B16hw), LATENT_CHANNELS, latent_frames(chunk_frames), 16, 16)
    pieces: list[Tensor] = []
    for chunk in range(chunks):
        conditions = ChunkConditions(
            hearing.chunk(mel_BNLC, chunk * new, chunk_frames), layout_B16hw
        )
        latents = sampler.sample(
            lambda x, t, c=conditions: c.velocity(network, x, t),  # type: ignore[misc]
            shape,
            motion_latents,
            generator,
            num_steps=num_steps,
        )
        if join:
            latents = joined(latents, motion_latents.shape[2])
        codes = unpack_codes(latents)
        pieces.append(codes if chunk == 0 else codes[:, MOTION_FRAMES:])
        motion_latents = hand_over(latents)
    return torch.cat(pieces, dim=1)
