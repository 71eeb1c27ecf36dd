"""The real AvatarSession on a pipeline that paints: for protocol tests without trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.pipeline import ChunkFrame
from visavis.engine.session import AvatarSession
from visavis.server.config import ServerConfig


@dataclass(frozen=True)
class PaintedAvatar:
    portrait: Portrait

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.portrait.warnings


class PaintingPipeline:
    """Frames are the portrait, brighter when it is loud; the state counts the frames."""

    front_end = MelFrontEnd()

    def first_state(self, conditions: Any, seed: int) -> Any:
        return 0

    def generate_chunk(
        self,
        state: Any,
        features: NDArray[np.float32],
        conditions: PaintedAvatar,
        *,
        shown: int,
        num_steps: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[ChunkFrame]:
        from visavis.engine.dit.sampler import ChunkAbandoned

        for _ in range(num_steps):
            if should_stop is not None and should_stop():
                raise ChunkAbandoned("stopped between steps")
        for position in range(shown):
            loudness = float(features[7 + position].mean())
            pixels = np.clip(conditions.portrait.image + 4.0 * loudness, 0, 255).astype(np.uint8)
            yield ChunkFrame(pixels, state + shown if position == shown - 1 else None)


class PaintingEngine:
    """AvatarEngine's surface, as far as the server uses it."""

    fps = 25
    frame_size = (256, 256)
    chunk_realtime_factor = 0.1

    def prepare_avatar(self, image: Any) -> PaintedAvatar:
        return PaintedAvatar(frame_portrait(image))

    def open_session(
        self, avatar: Any, *, input_rate: int = 16_000, seed: int = 0, num_steps: int | None = None
    ) -> AvatarSession:
        pipeline: Any = PaintingPipeline()
        return AvatarSession(
            pipeline, avatar, input_rate=input_rate, seed=seed, num_steps=num_steps or 4
        )

    def warm_up(self) -> float:
        return 0.0


def load_painting_engine(_: ServerConfig) -> Any:
    return PaintingEngine()
