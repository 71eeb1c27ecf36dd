"""A round of the second stage: what all processes draw alike, and the way to the supervised chunk.

Method section 1.9.1. Chunks before the last are made by the student without gradient; chunk i goes
on from chunk i - 1 of its own, through the hand-over.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import GRID, LATENT_CHANNELS, pack_codes
from visavis.engine.plan import MOTION_FRAMES, latent_frames
from visavis.training.checkpoints import step_seed
from visavis.training.dit_data import SequenceBatch
from visavis.training.flow_matching import supervised_slots
from visavis.training.pixel_hand_over import PixelHandOver
from visavis.training.recipes import StudentRecipe
from visavis.training.rollout import (
    ChunkConditions,
    ChunkHearing,
    Conditions,
    Network,
    SamplerName,
    exit_early,
    hand_over,
    joined,
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
    """What the supervised chunk is made from: its shape [B, C, T, h, w], conditions, handed-over
    latents; and, where motion was recorded, that and the weight of its lips."""

    shape: tuple[int, ...]
    conditions: Conditions
    motion: Tensor
    truth: Tensor | None = None
    lips: Tensor | None = None

    @property
    def supervised(self) -> Tensor:
        """1 in the slots that the student makes."""
        slots = torch.full((self.shape[0],), self.motion.shape[2], device=self.motion.device)
        return supervised_slots(slots, self.shape[2])


class Scene(Protocol):
    """A batch of sequences that a roll-out goes through, whatever their latents are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a chunk's latents, [B, C, T, h, w]."""
        ...

    def start(self) -> Tensor:
        """Motion latents of the first chunk, [B, C, 1 or 2, h, w]."""
        ...

    def conditions(self, chunk: int) -> Conditions:
        """Of chunk 0, 1, ... of the sequences."""
        ...

    def hand_over(
        self, latents_BCThw: Tensor, generator: torch.Generator, *, slots: int = 2
    ) -> Tensor:
        """Motion latents [B, C, 2, h, w] of the chunk that follows one of the student's, whose
        first `slots` latents were handed over."""
        ...

    def recorded(self, chunk: int) -> tuple[Tensor | None, Tensor | None]:
        """Latents of what was recorded there, and the lips' weights; None: nothing was."""
        ...


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
    pixels: PixelHandOver | None = None,
    join: bool = True,
) -> LastChunk:
    """`roll_to_last` through sequences of the embedded model."""
    scene = MotionScene(hearing, batch, chunk_frames, from_portrait, pixels, join)
    return roll_to_last(student, scene, chunks, generator, num_steps=num_steps, sampler=sampler)


def roll_to_last(
    student: Network,
    scene: Scene,
    chunks: int,
    generator: torch.Generator,
    *,
    num_steps: int,
    sampler: SamplerName = "renoise",
) -> LastChunk:
    """Generate all chunks but the last, without gradient, and set the last one up."""
    motion = scene.start()
    with torch.no_grad():
        for chunk in range(chunks - 1):
            heard = scene.conditions(chunk)
            latents = exit_early(
                lambda x, t, c=heard: c.velocity(student, x, t),  # type: ignore[misc]
                scene.shape,
                motion,
                generator,
                num_steps=num_steps,
                exit_step=num_steps - 1,
                sampler=sampler,
            )
            motion = scene.hand_over(latents, generator, slots=motion.shape[2])
    last = chunks - 1
    return LastChunk(scene.shape, scene.conditions(last), motion.detach(), *scene.recorded(last))


@dataclass(frozen=True, slots=True)
class MotionScene:
    """Sequences of the embedded model: motion codes that are handed over without pixels, with
    `join` as the deployed codec joins them to what was before, or through `pixels`, which joins
    them always."""

    hearing: ChunkHearing
    batch: SequenceBatch
    chunk_frames: int
    from_portrait: bool
    pixels: PixelHandOver | None = None
    join: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a chunk's latents."""
        return chunk_shape(len(self.batch.layout), self.chunk_frames)

    def start(self) -> Tensor:
        """The portrait's own latent, or the recorded frames before the first chunk's new ones."""
        return pack_codes(self.batch.codes[:, : 1 if self.from_portrait else MOTION_FRAMES])

    def conditions(self, chunk: int) -> ChunkConditions:
        """What is heard of the chunk, and the portraits' layout."""
        heard = self.hearing.chunk(self.batch.mel, self._first(chunk), self.chunk_frames)
        return ChunkConditions(heard, self.batch.layout)

    def hand_over(
        self, latents_BCThw: Tensor, generator: torch.Generator, *, slots: int = 2
    ) -> Tensor:
        """The last five frames' codes, read off pixels if the recipe wants it."""
        if self.pixels is not None:
            return self.pixels(latents_BCThw, self.batch.portraits, slots)
        return hand_over(joined(latents_BCThw, slots) if self.join else latents_BCThw)

    def recorded(self, chunk: int) -> tuple[Tensor, Tensor]:
        """Where history is generated, it replaces the recorded frames: slot 0 codes one there."""
        first = self._first(chunk)
        return pack_codes(self.batch.codes[:, first : first + self.chunk_frames]), self.batch.lips

    def _first(self, chunk: int) -> int:
        return chunk * (self.chunk_frames - MOTION_FRAMES)


def chunk_shape(batch: int, chunk_frames: int) -> tuple[int, int, int, int, int]:
    """Latents of a chunk: [B, C, T, h, w]."""
    return (batch, LATENT_CHANNELS, latent_frames(chunk_frames), GRID, GRID)
