"""One chunk, on one screen: windows -> denoising steps -> decode -> hand-over (method section 1.7).

Knows nothing of audio formats, sessions or time; what a chunk hands to the next is `ChunkState`.
A chunk is a `ChunkJob` that is moved on step by step, alone or together with others of its shape.

Letters: B batch, C channels, T latent frames, h w latent size, F pixel frames, W audio window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH, AudioFrontEnd
from visavis.engine.audio.window import audio_windows
from visavis.engine.codec.base import EarlyDecoder, LatentCodec
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.model import AudioCache, ContextCache, FlashTalkDiT
from visavis.engine.dit.sampler import ChunkAbandoned, Denoising, RenoisingSampler, timesteps
from visavis.engine.host_copies import CopiesAtOnce, HostCopies, PinnedCopies, on_host, to_device
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
    """What a chunk hands to the next: motion latents float32 [C, 1 or 2, h, w] and random state.

    `poses` are those of the last frames shown, up to five, which the motion latents code; a short
    chunk hands the later of them on.
    """

    motion: Tensor
    random: Tensor
    poses: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkFrame:
    """uint8 RGB [H, W, 3] and the codec's own form of it, to go on from (`DecodedFrames.exact`).

    The chunk's last frame comes with the state for the next chunk.
    """

    pixels: NDArray[np.uint8]
    pose: Tensor
    next_state: ChunkState | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkJob:
    """A chunk under way: its noise, its motion frames and its conditions; none of it is shared."""

    chunk_frames: int
    shown: int
    start: ChunkState
    conditions: Conditions
    audio: AudioCache
    levels: tuple[TimeConstants, ...]
    generator: torch.Generator
    denoising: Denoising
    begun: Any | None = None  # the decoding of its motion frames, if the codec began it

    @property
    def denoised(self) -> bool:
        """Whether it is ready to be decoded."""
        return self.denoising.done

    @property
    def shape(self) -> int:
        """Jobs of equal shape can be denoised together, at whatever noise level each of them is."""
        return self.chunk_frames


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
        # Where the host waits for the device: a group of processes looks at this moment.
        self.copies: HostCopies = PinnedCopies() if device.type == "cuda" else CopiesAtOnce()
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
    def start_chunk(
        self,
        state: ChunkState,
        features: NDArray[np.float32],
        conditions: Conditions,
        *,
        shown: int,
        num_steps: int,
        temperature: float = 1.0,
    ) -> ChunkJob:
        """Prepare a chunk of which the first `shown` new frames are wanted.

        `features` are [2 + F, layers, channels]: the chunk's F frames after two earlier ones.
        `temperature` of its noise, below 1 for calmer motion.
        """
        chunk_frames = len(features) - WINDOW_REACH
        generator = torch.Generator(self.device)
        generator.set_state(state.random)
        windows = audio_windows(to_device(features, self.device), start=WINDOW_REACH)
        shape = (self.codec.latent_channels, latent_frames(chunk_frames), *self.codec.latent_size)
        return ChunkJob(
            chunk_frames,
            shown,
            state,
            conditions,
            self.model.prepare_audio(windows[None], latent_size=self.codec.latent_size),
            self._levels(num_steps),
            generator,
            self.sampler.start(
                (1, *shape), state.motion, generator, num_steps=num_steps, temperature=temperature
            ),
            self.codec.begin_decode(state.motion) if isinstance(self.codec, EarlyDecoder) else None,
        )

    @torch.inference_mode()
    def denoise(self, jobs: Sequence[ChunkJob]) -> None:
        """One step of each job, in one pass of the transformer; their `shape` must be the same.

        A batch gives what its members would get alone, up to the rounding of matrix products whose
        kernels depend on the number of rows (below 1e-5 in the latents, tested).
        """
        times = [job.levels[job.denoising.step] for job in jobs]
        velocity = self.model.velocity(
            _joined([job.denoising.latents for job in jobs]),
            TimeConstants(*(_joined(parts) for parts in zip(*times, strict=True))),
            _joined([job.conditions.cond_latents[job.chunk_frames] for job in jobs]),
            AudioCache.stack([job.audio for job in jobs]),
            ContextCache.stack([job.conditions.context for job in jobs]),
            given_slots=min(job.start.motion.shape[1] for job in jobs),
        )
        for job, own in zip(jobs, torch.split(velocity.float(), 1), strict=True):
            job.denoising.advance(own)

    @torch.inference_mode()
    def decode(self, job: ChunkJob) -> Iterator[ChunkFrame]:
        """The frames of a denoised job, in order, as they are decoded."""
        latents = self.codec.join(job.denoising.latents[0], job.start.motion)
        recent = deque(job.start.poses, maxlen=MOTION_FRAMES)
        # A short chunk's hand-over needs some of its motion frames: those that were shown, or as
        # this chunk decodes them again, where that is not the same.
        hidden = 0
        if not (self.codec.exact_is_read_from_latents and recent):
            hidden = max(0, MOTION_FRAMES - job.shown)
        count = -hidden
        early = {} if job.begun is None else {"begun": job.begun}
        decoded = self.codec.decode(
            latents, job.conditions.reference, skip_frames=MOTION_FRAMES - hidden, **early
        )
        for pictures, exacts in on_host(decoded, self.copies):
            for pixels, exact in zip(pictures, exacts, strict=True):
                recent.append(exact)
                count += 1
                if count <= 0:
                    continue
                next_state = None
                if count == job.shown:
                    poses = tuple(recent)
                    motion = self.hand_over(poses, job.conditions)
                    next_state = ChunkState(motion, job.generator.get_state(), poses)
                yield ChunkFrame(pixels, exact, next_state)
                if count == job.shown:
                    return

    @torch.inference_mode()
    def hand_over(self, poses: Sequence[Tensor], conditions: Conditions) -> Tensor:
        """Motion latents after the frames with these poses, the last five of which count.

        Where fewer were ever shown, the first is taken to have stood still before.
        """
        last = list(poses[-MOTION_FRAMES:])
        last = [last[0]] * (MOTION_FRAMES - len(last)) + last
        return self.codec.motion_latents(torch.stack(last), conditions.reference)

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
        """A whole chunk on its own; arguments as for `start_chunk`.

        Raises:
            ChunkAbandoned: `should_stop` was true at a step's border; no frame was given.
        """
        job = self.start_chunk(state, features, conditions, shown=shown, num_steps=num_steps)
        while not job.denoised:
            if should_stop is not None and should_stop():
                raise ChunkAbandoned("the chunk was abandoned before it was complete")
            self.denoise([job])
        yield from self.decode(job)

    def _levels(self, num_steps: int) -> tuple[TimeConstants, ...]:
        """The embedded noise levels of a schedule: the same for every chunk of every session."""
        if num_steps not in self._schedules:
            self._schedules[num_steps] = tuple(
                self.model.prepare_time(torch.tensor([level], device=self.device))
                for level in timesteps(num_steps)[:-1]
            )
        return self._schedules[num_steps]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
