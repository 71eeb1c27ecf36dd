"""Whole sessions without a clock or sound output: chunk after chunk as deployed, for measurements.

Chunks are batched over sessions, and pixels are drawn only where somebody looks at them. A session
may also hand its chunks over as the paper does, through pixels (method section 1.7).

Legend: S sessions, N frames of a chunk, H W pixels, h w control grid.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.avatar_engine import Avatar
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import unpack_codes
from visavis.engine.color import ColorMatcher
from visavis.engine.pipeline import ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import (
    CHUNK_LENGTHS,
    ENGINE_SAMPLES_PER_FRAME,
    MOTION_FRAMES,
    check_chunk_frames,
    new_frames,
)

# Of the longest chunk, which is what a run makes unless it is told otherwise.
NEW_FRAMES: Final = new_frames(CHUNK_LENGTHS[-1])

HandOver = Literal["exact", "reencoded", "corrected"]
"""How a chunk goes over to the next: its codes as they are (as deployed); its last pictures encoded
again; or these after their colours were matched to the portrait's (`engine/color.py`)."""


@dataclass(slots=True)
class LongSession:
    """A session without a clock: its avatar's conditions, its state, and where its audio is.

    `colours` matches what is shown to the portrait; None: colours stay as they are drawn.
    """

    conditions: Conditions
    state: ChunkState
    pcm: NDArray[np.float32]
    position: int = 0
    hand_over: HandOver = "exact"
    colours: ColorMatcher | None = field(default=None, repr=False)

    def hear(self, past: int, frames: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The last `past` samples and those of the next `frames`; the recording goes round and
        round."""
        new = frames * ENGINE_SAMPLES_PER_FRAME
        index = np.arange(self.position - past, self.position + new)
        heard = self.pcm[index % len(self.pcm)]
        heard[index < 0] = 0
        self.position += new
        return heard[:past], heard[past:]


class LongRun:
    """Several sessions of one pipeline, chunk by chunk together, all chunks of one length."""

    def __init__(
        self,
        pipeline: FlashTalkPipeline,
        *,
        num_steps: int = 4,
        chunk_frames: int = CHUNK_LENGTHS[-1],
    ) -> None:
        """Of a chunk's `chunk_frames` five are handed over, as everywhere.

        Raises:
            ValueError: the codec has no motion codes.
            PlanError: the engine makes no chunks of that length.
        """
        if not isinstance(pipeline.codec, MotionCodec):
            raise ValueError("codec: long runs read motion codes, so they need the MotionCodec")
        self.pipeline, self.codec, self.num_steps = pipeline, pipeline.codec, num_steps
        self.new_frames = new_frames(check_chunk_frames(chunk_frames))
        # The same weights, which draw what they are to read again.
        self._reencoding = copy.copy(self.codec)
        self._reencoding.reencode = True

    def open(
        self,
        avatar: Avatar,
        pcm: NDArray[np.float32],
        seed: int,
        *,
        hand_over: HandOver = "exact",
    ) -> LongSession:
        """A session at rest; `pcm` float32 at 16 kHz."""
        state = self.pipeline.first_state(avatar.conditions, seed)
        session = LongSession(avatar.conditions, state, pcm, hand_over=hand_over)
        if hand_over == "corrected":
            portrait = torch.from_numpy(self.portrait(session))
            session.colours = ColorMatcher(_symmetric(portrait[None])[0, :, 0])
        return session

    @torch.inference_mode()
    def advance(self, sessions: Sequence[LongSession]) -> list[Tensor]:
        """One chunk of each; the codes [new_frames, 6, h, w] of its new frames."""
        front_end = self.pipeline.front_end
        jobs = [
            self.pipeline.start_chunk(
                session.state,
                front_end.features(*session.hear(front_end.past_samples, self.new_frames)),
                session.conditions,
                shown=self.new_frames,
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
            session.state = self._next_state(
                codes[-MOTION_FRAMES:], session, job.generator.get_state()
            )
            made.append(codes[MOTION_FRAMES:])
        return made

    def _next_state(self, last_56hw: Tensor, session: LongSession, random: Tensor) -> ChunkState:
        if session.hand_over == "exact":
            poses = tuple(last_56hw)
            return ChunkState(self.pipeline.hand_over(poses, session.conditions), random, poses)
        shown = self._draw(last_56hw, session)
        motion = self._reencoding.motion_latents(shown, session.conditions.reference)
        return ChunkState(motion, random, tuple(shown))

    def draw(self, codes_N6hw: Tensor, session: LongSession) -> NDArray[np.uint8]:
        """Pictures uint8 [N, S, S, 3] as the session shows them, but for its whole blinks, which
        want the frames before."""
        pictures: NDArray[np.uint8] = self._draw(codes_N6hw, session).cpu().numpy()
        return pictures

    def portrait(self, session: LongSession) -> NDArray[np.uint8]:
        """The portrait as the session shows it at rest, uint8 [S, S, 3]."""
        rest = session.conditions.initial_motion
        (picture,) = self.draw(unpack_codes(rest[None])[0], session)
        return np.asarray(picture, np.uint8)

    @torch.inference_mode()
    def _draw(self, codes_N6hw: Tensor, session: LongSession) -> Tensor:
        codec = self.codec if session.hand_over == "exact" else self._reencoding
        reference = session.conditions.reference
        pictures = codec.draw(codec.shown(codes_N6hw, reference), reference)
        if session.colours is None:
            return pictures
        matched = session.colours(_symmetric(pictures))[0].permute(1, 2, 3, 0)
        return ((matched + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    @torch.inference_mode()
    def render(self, codes_N6hw: Tensor, session: LongSession) -> NDArray[np.uint8]:
        """Pictures uint8 [N, H, W, 3] of codes by the codec's own painter, whatever is shown."""
        frames = self.codec.render(codes_N6hw, session.conditions.reference)
        pictures: NDArray[np.uint8] = (
            (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        )
        return pictures


def _symmetric(pictures_NHW3: Tensor) -> Tensor:
    """Video [1, 3, N, H, W] in -1..1 of bytes."""
    return pictures_NHW3.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
