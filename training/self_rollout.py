"""A round of the second stage: what all processes draw alike, and the way to the supervised chunk.

Method section 1.9.1. Chunks before the last are made by the student without gradient; chunk i goes
on from chunk i - 1 of its own, through the hand-over.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import GRID, LATENT_CHANNELS, pack_codes
from visavis.engine.plan import MOTION_FRAMES, latent_frames
from visavis.training.checkpoints import step_seed
from visavis.training.dit_data import SequenceBatch
from visavis.training.flow_matching import supervised_slots
from visavis.training.recipes import StudentRecipe
from visavis.training.rollout import (
    ChunkConditions,
    ChunkHearing,
    Network,
    SamplerName,
    exit_early,
    hand_over,
)
from visavis.training.validation import CHUNK_FRAMES


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The same in all processes: number of chunks, the step at which the last one is left, and
    whether the roll-out starts from the portrait or from recorded motion."""

    chunks: int
    exit_step: int
    from_portrait: bool


def plan_round(recipe: StudentRecipe, step: int) -> RoundPlan:
    """Drawn from (seed, step) alone, so that ranks agree without a message.

    A recipe with a fixed number of chunks draws the same exit steps and starts.
    """
    shared = np.random.default_rng(step_seed(recipe.seed, step, 0, 1))
    chunks = int(shared.integers(1, recipe.max_chunks + 1))
    exit_step = int(shared.integers(recipe.num_steps))
    from_portrait = bool(shared.random() >= recipe.recorded_start)
    return RoundPlan(
        chunks if recipe.random_chunks else recipe.max_chunks, exit_step, from_portrait
    )


def network_evaluations(recipe: StudentRecipe, plan: RoundPlan) -> int:
    """Forward passes that a round costs, a backward pass counted as two."""
    history = recipe.num_steps * (plan.chunks - 1)
    samples = 2 * (plan.exit_step + 1)
    scores = 2 + (recipe.audio_guidance != 1.0)
    backward = 2 + 3 * recipe.critic_updates
    return history + samples + scores + backward


@dataclass(frozen=True, slots=True)
class LastChunk:
    """What the supervised chunk is made from: conditions, handed-over latents, recorded motion."""

    conditions: ChunkConditions
    motion: Tensor
    truth: Tensor
    lips: Tensor

    @property
    def supervised(self) -> Tensor:
        """1 in the slots that the student makes."""
        slots = torch.full((len(self.truth),), self.motion.shape[2])
        return supervised_slots(slots, self.truth.shape[2])


def sequence_frames(chunks: int, chunk_frames: int = CHUNK_FRAMES) -> int:
    """Frames of a roll-out of `chunks` chunks."""
    return MOTION_FRAMES + chunks * (chunk_frames - MOTION_FRAMES)


def reach_last_chunk(
    student: Network,
    hearing: ChunkHearing,
    batch: SequenceBatch,
    chunks: int,
    generator: torch.Generator,
    *,
    num_steps: int,
    from_portrait: bool,
    chunk_frames: int = CHUNK_FRAMES,
    sampler: SamplerName = "renoise",
    hand_over_noise: float = 0.0,
) -> LastChunk:
    """Generate all chunks but the last, without gradient, and set the last one up."""
    new = chunk_frames - MOTION_FRAMES

    def conditions(chunk: int) -> ChunkConditions:
        return ChunkConditions(hearing.chunk(batch.mel, chunk * new, chunk_frames), batch.layout)

    motion = pack_codes(batch.codes[:, : 1 if from_portrait else MOTION_FRAMES])
    with torch.no_grad():
        for chunk in range(chunks - 1):
            heard = conditions(chunk)
            latents = exit_early(
                lambda x, t, c=heard: c.velocity(student, x, t),  # type: ignore[misc]
                chunk_shape(len(batch.layout), chunk_frames),
                motion,
                generator,
                num_steps=num_steps,
                exit_step=num_steps - 1,
                sampler=sampler,
            )
            motion = hand_over(latents, noise=hand_over_noise, generator=generator)
    first = (chunks - 1) * new
    # Where history is generated, it replaces the recorded frames: slot 0 codes one frame there.
    truth = pack_codes(batch.codes[:, first : first + chunk_frames])
    return LastChunk(conditions(chunks - 1), motion.detach(), truth, batch.lips)


def chunk_shape(batch: int, chunk_frames: int) -> tuple[int, int, int, int, int]:
    """Latents of a chunk: [B, C, T, h, w]."""
    return (batch, LATENT_CHANNELS, latent_frames(chunk_frames), GRID, GRID)
