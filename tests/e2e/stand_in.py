"""The real AvatarSession on a pipeline that paints: for protocol tests without trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.batching import ChunkScheduler
from visavis.engine.costs import ChunkCosts
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.pipeline import ChunkFrame, ChunkState
from visavis.engine.session import AvatarSession
from visavis.server.config import ServerConfig


@dataclass(frozen=True)
class PaintedAvatar:
    portrait: Portrait
    initial_motion: torch.Tensor = field(default_factory=lambda: torch.zeros(1))

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.portrait.warnings


@dataclass
class PaintedChunk:
    """A ChunkJob as far as sessions and the scheduler look at it."""

    features: NDArray[np.float32]
    avatar: PaintedAvatar
    shown: int
    steps_left: int
    generator: torch.Generator

    @property
    def chunk_frames(self) -> int:
        return len(self.features) - 2

    shape = chunk_frames

    @property
    def denoised(self) -> bool:
        return self.steps_left == 0


class PaintingPipeline:
    """Frames are the portrait, brighter when it is loud."""

    front_end = MelFrontEnd()

    def first_state(self, conditions: Any, seed: int) -> ChunkState:
        generator = torch.Generator().manual_seed(seed)
        return ChunkState(torch.zeros(1), generator.get_state())

    def start_chunk(
        self,
        state: ChunkState,
        features: NDArray[np.float32],
        conditions: PaintedAvatar,
        *,
        shown: int,
        num_steps: int,
        temperature: float = 1.0,
    ) -> PaintedChunk:
        return PaintedChunk(features, conditions, shown, num_steps, torch.Generator())

    def denoise(self, jobs: Sequence[PaintedChunk]) -> None:
        for job in jobs:
            job.steps_left -= 1

    def decode(self, job: PaintedChunk) -> Iterator[ChunkFrame]:
        for position in range(job.shown):
            loudness = float(job.features[7 + position].mean())
            pixels = np.clip(job.avatar.portrait.image + 4.0 * loudness, 0, 255).astype(np.uint8)
            pose = torch.tensor([loudness])
            last = position == job.shown - 1
            state = ChunkState(pose, job.generator.get_state()) if last else None
            yield ChunkFrame(pixels, pose, state)

    def hand_over(self, poses: Sequence[torch.Tensor], conditions: Any) -> torch.Tensor:
        return poses[-1]


class PaintingEngine:
    """AvatarEngine's surface, as far as the server uses it."""

    fps = 25
    frame_size = (256, 256)
    frame_sizes = ((256, 256),)
    listens = True
    device = torch.device("cpu")
    chunk_realtime_factor = 0.1
    num_steps = 4
    group: Any = None

    def __init__(self) -> None:
        self._pipeline: Any = PaintingPipeline()
        self.scheduler = ChunkScheduler(self._pipeline)
        # A fast engine: a chunk takes about a tenth of the time that it plays.
        self.costs = ChunkCosts(
            steps_s={length: {1: 0.01} for length in (9, 13, 17, 33)},
            prepare_s=0.001,
            first_frame_s=0.002,
            frame_s=0.002,
        )

    def prepare_avatar(
        self, image: Any, *, on_step: Callable[[float], None], settle: bool
    ) -> PaintedAvatar:
        portrait = frame_portrait(image)
        on_step(0.75)
        return PaintedAvatar(portrait)

    def settle_avatar(self, avatar: PaintedAvatar) -> PaintedAvatar:
        return avatar

    def open_session(
        self,
        avatar: Any,
        *,
        input_rate: int = 16_000,
        seed: int = 0,
        num_steps: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> AvatarSession:
        return AvatarSession(
            self._pipeline, avatar, input_rate=input_rate, seed=seed, num_steps=num_steps or 4
        )

    def warm_up(self) -> float:
        return 0.0


def load_painting_engine(_: ServerConfig) -> Any:
    return PaintingEngine()
