"""Whole sessions without a clock or sound output: chunk after chunk as deployed, for measurements.

Chunks are batched over sessions, and pixels are rendered only where somebody looks at them.

Legend: S sessions, N frames of a chunk, H W pixels, h w control grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.avatar_engine import Avatar
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import unpack_codes
from visavis.engine.pipeline import ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, MOTION_FRAMES

CHUNK_FRAMES: Final = 33
NEW_FRAMES: Final = CHUNK_FRAMES - MOTION_FRAMES


@dataclass(slots=True)
class LongSession:
    """A session without a clock: its avatar's conditions, its state, and where its audio is."""

    conditions: Conditions
    state: ChunkState
    pcm: NDArray[np.float32]
    position: int = 0

    def hear(self, past: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last `past` samples and the next chunk's; the recording goes round and round."""
        new = NEW_FRAMES * ENGINE_SAMPLES_PER_FRAME
        index = np.arange(self.position - past, self.position + new)
        heard = self.pcm[index % len(self.pcm)]
        heard[index < 0] = 0
        self.position += new
        return heard[:past], heard[past:]


class LongRun:
    """Several sessions of one pipeline, chunk by chunk together."""

    def __init__(self, pipeline: FlashTalkPipeline, *, num_steps: int = 4) -> None:
        if not isinstance(pipeline.codec, MotionCodec):
            raise ValueError("codec: long runs read motion codes, so they need the MotionCodec")
        self.pipeline, self.codec, self.num_steps = pipeline, pipeline.codec, num_steps

    def open(self, avatar: Avatar, pcm: NDArray[np.float32], seed: int) -> LongSession:
        """A session at rest; `pcm` float32 at 16 kHz."""
        state = self.pipeline.first_state(avatar.conditions, seed)
        return LongSession(avatar.conditions, state, pcm)

    @torch.inference_mode()
    def advance(self, sessions: Sequence[LongSession]) -> list[Tensor]:
        """One chunk of each; the codes [28, 6, h, w] of its new frames."""
        front_end = self.pipeline.front_end
        jobs = [
            self.pipeline.start_chunk(
                session.state,
                front_end.features(*session.hear(front_end.past_samples)),
                session.conditions,
                shown=NEW_FRAMES,
                num_steps=self.num_steps,
            )
            for session in sessions
        ]
        while not all(job.denoised for job in jobs):
            self.pipeline.denoise(jobs)
        made = []
        for job, session in zip(jobs, sessions, strict=True):
            latents = self.codec.join(job.denoising.latents[0], job.start.motion)
            codes = unpack_codes(latents[None])[0]
            motion = self.pipeline.hand_over(tuple(codes[-MOTION_FRAMES:]), session.conditions)
            session.state = ChunkState(
                motion, job.generator.get_state(), tuple(codes[-MOTION_FRAMES:])
            )
            made.append(codes[MOTION_FRAMES:])
        return made

    @torch.inference_mode()
    def render(self, codes_N6hw: Tensor, session: LongSession) -> NDArray[np.uint8]:
        """Pictures uint8 [N, H, W, 3] of codes."""
        frames = self.codec.render(codes_N6hw, session.conditions.reference)
        pictures: NDArray[np.uint8] = (
            (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        )
        return pictures
