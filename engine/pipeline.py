"""One chunk, on one screen: windows -> denoising steps -> decode -> hand-over (method section 1.7).

Knows nothing of audio formats, sessions or time; what a chunk hands to the next is `ChunkState`.

Letters: B batch, C channels, T latent frames, h w latent size, F pixel frames, W audio window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH, AudioFrontEnd
from visavis.engine.audio.window import audio_windows
from visavis.engine.codec.base import LatentCodec
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.model import ContextCache, FlashTalkDiT
from visavis.engine.dit.sampler import RenoisingSampler, timesteps
from visavis.engine.plan import CHUNK_LENGTHS, MOTION_FRAMES, latent_frames


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is constant for an avatar: its reference, and what the transformer makes of it.

    `cond_latents` holds [1, cond_channels, T, h, w] for each chunk length.
    """

    reference: Any
    cond_latents: dict[int, Tensor]
    context: ContextCache
    initial_motion: Tensor


@dataclass(frozen=True, slots=True)
class ChunkState:
    """What a chunk hands to the next: motion latents float32 [C, 1 or 2, h, w] and random state."""

    motion: Tensor
    random: Tensor


@dataclass(frozen=True, slots=True)
class ChunkFrame:
    """uint8 RGB [H, W, 3]; the chunk's last frame comes with the state for the next chunk."""

    pixels: NDArray[np.uint8]
    next_state: ChunkState | None


class FlashTalkPipeline:
    """Transformer, sampler and codec of one model; serves any number of sessions in turn."""

    def __init__(
        self,
        model: FlashTalkDiT,
        codec: LatentCodec[Any],
        front_end: AudioFrontEnd,
        device: torch.device,
        *,
        text: Tensor | None = None,
    ) -> None:
        """`text`: features of the prompt, [1, L, text_dim], for a model with a text branch."""
        self.model = model
        self.codec = codec
        self.front_end = front_end
        self.device = device
        self.text = text
        self.sampler = RenoisingSampler()
        self._schedules: dict[int, tuple[TimeConstants, ...]] = {}

    @torch.inference_mode()
    def conditions(self, reference: Any) -> Conditions:
        """Encode everything that no chunk of this avatar changes.

        Raises:
            ValueError: the model has a text branch and the pipeline no `text`, or the other way
                round.
        """
        config = self.model.config
        tokens = self.codec.image_tokens(reference)
        return Conditions(
            reference,
            {f: self.codec.cond_latents(reference, f)[None] for f in CHUNK_LENGTHS},
            self.model.prepare_context(
                self.text,
                tokens[None] if tokens is not None and config.has_image else None,
            ),
            self.codec.initial_motion(reference),
        )

    def first_state(self, conditions: Conditions, seed: int) -> ChunkState:
        """State before a session's first chunk."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return ChunkState(conditions.initial_motion, generator.get_state())

    @torch.inference_mode()
    def generate_chunk(
        self,
        state: ChunkState,
        features: NDArray[np.float32],
        conditions: Conditions,
        *,
        shown: int,
        num_steps: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[ChunkFrame]:
        """Make the first `shown` new frames of a chunk, in order, as they are decoded.

        `features` are [2 + F, layers, channels]: the chunk's F frames after two earlier ones.

        Raises:
            ChunkAbandoned: `should_stop` was true at a step's border; no frame was given.
        """
        chunk_frames = len(features) - WINDOW_REACH
        cond_latents = conditions.cond_latents[chunk_frames]
        generator = torch.Generator(self.device)
        generator.set_state(state.random)

        windows = audio_windows(torch.from_numpy(features).to(self.device), start=WINDOW_REACH)
        audio = self.model.prepare_audio(windows[None])

        levels = iter(self._levels(num_steps))

        def velocity(latents_BCTHW: Tensor, _: Tensor) -> Tensor:
            return self.model.velocity(
                latents_BCTHW, next(levels), cond_latents, audio, conditions.context
            )

        latents = self.sampler.sample(
            velocity,
            (self.codec.latent_channels, latent_frames(chunk_frames), *self.codec.latent_size),
            state.motion,
            generator,
            num_steps=num_steps,
            should_stop=should_stop,
        )
        latents = self.codec.join(latents, state.motion)

        end = MOTION_FRAMES + shown
        skip = min(MOTION_FRAMES, shown)  # a short tail's hand-over needs some motion frames, too
        recent: deque[Tensor] = deque(maxlen=MOTION_FRAMES)
        index = skip
        for batch in self.codec.decode(latents, conditions.reference, skip_frames=skip):
            for pixels, exact in zip(batch.pixels, batch.exact, strict=True):
                recent.append(exact)
                index += 1
                if index <= MOTION_FRAMES:
                    continue
                next_state = None
                if index == end:
                    motion = self.codec.motion_latents(
                        latents, torch.stack(tuple(recent)), conditions.reference, end_frame=end
                    )
                    next_state = ChunkState(motion, generator.get_state())
                yield ChunkFrame(pixels.cpu().numpy(), next_state)
                if index == end:
                    return

    def _levels(self, num_steps: int) -> tuple[TimeConstants, ...]:
        """The embedded noise levels of a schedule: the same for every chunk of every session."""
        if num_steps not in self._schedules:
            self._schedules[num_steps] = tuple(
                self.model.prepare_time(torch.tensor([level], device=self.device))
                for level in timesteps(num_steps)[:-1]
            )
        return self._schedules[num_steps]
