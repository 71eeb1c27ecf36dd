"""Long roll-outs: does the face drift, and does it come back when it is pushed off (section 3.1)?

Chunks are made as deployed, batched over sessions; pixels are rendered where they are looked at.

Legend: S sessions, N frames of a chunk, H W pixels, h w control grid.
"""

from collections.abc import Callable, Sequence
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

    @torch.inference_mode()
    def push(self, session: LongSession, codes_N6hw: Tensor, disturb: "Disturbance") -> None:
        """Replace the hand-over by what the encoder finds in the last frames once disturbed."""
        reference = session.conditions.reference
        frames = self.codec.render(codes_N6hw[-MOTION_FRAMES:], reference)
        seen = self.codec.encode(disturb(frames).clamp(0, 1), reference)
        motion = self.pipeline.hand_over(tuple(seen), session.conditions)
        session.state = ChunkState(motion, session.state.random, tuple(seen))


Disturbance = Callable[[Tensor], Tensor]
"""Frames [N, 3, H, W] in 0..1 -> the same, disturbed."""


def _noise(frames: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return frames + 0.1 * torch.randn(frames.shape, generator=generator)


def _hue(frames: Tensor) -> Tensor:
    return frames * frames.new_tensor([1.15, 1.0, 0.85])[:, None, None]


def _blur(frames: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(frames, 7, stride=1, padding=3, count_include_pad=False)


def _shift(frames: Tensor) -> Tensor:
    return frames.roll((3, 3), dims=(2, 3))


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "noise": _noise,
    "hue": _hue,
    "blur": _blur,
    "shift": _shift,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Residual after chunks 1, 2, 5, 10 over what the disturbance did to the hand-over, by kind:
    [S, 4]."""

    residual: dict[str, NDArray[np.float64]]


RECOVERY_CHUNKS: Final = (1, 2, 5, 10)


def recover(run: LongRun, sessions: Sequence[Callable[[], LongSession]]) -> Recovery:
    """Disturb the motion frames after two chunks; twins with the same noise go on undisturbed."""
    residual: dict[str, list[list[float]]] = {name: [] for name in DISTURBANCES}
    for make in sessions:
        group = [make() for _ in range(len(DISTURBANCES) + 1)]
        run.advance(group)
        codes = run.advance(group)
        undisturbed, *disturbed = group
        run.push(undisturbed, codes[0], lambda frames: frames)
        pushed = []
        for disturb, session in zip(DISTURBANCES.values(), disturbed, strict=True):
            run.push(session, codes[0], disturb)
            pushed.append(_distance(undisturbed.state.poses, session.state.poses))
        left: dict[str, list[float]] = {name: [] for name in DISTURBANCES}
        for chunk in range(1, RECOVERY_CHUNKS[-1] + 1):
            run.advance(group)
            if chunk in RECOVERY_CHUNKS:
                for name, session, start in zip(left, disturbed, pushed, strict=True):
                    distance = _distance(undisturbed.state.poses, session.state.poses)
                    left[name].append(distance / max(start, 1e-6))
        for name, shares in left.items():
            residual[name].append(shares)
    return Recovery(residual={name: np.array(rows) for name, rows in residual.items()})


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Root mean square difference of codes."""
    difference = torch.stack(list(first)) - torch.stack(list(second))
    return float(difference.square().mean().sqrt())
