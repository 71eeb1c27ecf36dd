"""Does the face come back when it is pushed off its way (section 3.1)?

Chunks are made as deployed, batched over sessions; pixels are rendered where they are looked at.

Legend: N frames of a chunk, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.long_run import LongRun, LongSession
from visavis.engine.pipeline import ChunkState
from visavis.engine.plan import MOTION_FRAMES


@torch.inference_mode()
def push(run: LongRun, session: LongSession, codes_N6hw: Tensor, disturb: "Disturbance") -> None:
    """Replace the hand-over by what the encoder finds in the last frames once disturbed."""
    reference = session.conditions.reference
    frames = run.codec.render(codes_N6hw[-MOTION_FRAMES:], reference)
    seen = run.codec.encode(disturb(frames).clamp(0, 1), reference)
    motion = run.pipeline.hand_over(tuple(seen), session.conditions)
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
    """One session's residual after chunks 1, 2, 5, 10 over what the disturbance did to the
    hand-over, by kind [4]."""

    residual: dict[str, NDArray[np.float64]]


RECOVERY_CHUNKS: Final = (1, 2, 5, 10)


def recover(run: LongRun, make: Callable[[], LongSession]) -> Recovery:
    """Disturb the motion frames after two chunks; twins with the same noise go on undisturbed."""
    group = [make() for _ in range(len(DISTURBANCES) + 1)]
    run.advance(group)
    codes = run.advance(group)
    undisturbed, *disturbed = group
    push(run, undisturbed, codes[0], lambda frames: frames)
    pushed = []
    for disturb, session in zip(DISTURBANCES.values(), disturbed, strict=True):
        push(run, session, codes[0], disturb)
        pushed.append(_distance(undisturbed.state.poses, session.state.poses))
    left: dict[str, list[float]] = {name: [] for name in DISTURBANCES}
    for chunk in range(1, RECOVERY_CHUNKS[-1] + 1):
        run.advance(group)
        if chunk in RECOVERY_CHUNKS:
            for name, session, start in zip(left, disturbed, pushed, strict=True):
                distance = _distance(undisturbed.state.poses, session.state.poses)
                left[name].append(distance / max(start, 1e-6))
    return Recovery(residual={name: np.array(shares) for name, shares in left.items()})


def residuals(recoveries: Sequence[Recovery]) -> dict[str, NDArray[np.float64]]:
    """The share left after each number of chunks [4], by kind; means over the sessions."""
    return {name: np.mean([r.residual[name] for r in recoveries], axis=0) for name in DISTURBANCES}


def recovery_figures(recoveries: Sequence[Recovery]) -> dict[str, float]:
    """RECOVER: the share left after each number of chunks, of the disturbance that is worst on
    average over the sessions."""
    worst = np.max(list(residuals(recoveries).values()), axis=0)
    return {f"recover_{chunk}": float(worst[i]) for i, chunk in enumerate(RECOVERY_CHUNKS)}


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Root mean square difference of codes."""
    difference = torch.stack(list(first)) - torch.stack(list(second))
    return float(difference.square().mean().sqrt())
