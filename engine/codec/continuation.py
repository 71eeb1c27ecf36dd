"""What joins a sampled chunk to the one before it: motion that goes on instead of starting anew.

The sampler knows the handed-over frames only through attention, and draws what chance decides for
each latent frame by itself. Over a whole picture both show: as a flicker once a chunk, and as a
judder of the head every fourth frame.

Legend: N frames of a chunk, M of them handed over, C channels, T latent frames, h w control grid.
"""

from functools import cache
from typing import Final

import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.plan import MOTION_FRAMES

# A step of the head at the border fades so long.
HEAD_FADE_FRAMES: Final = 16
# How much a bend of the head's way counts against leaving what was sampled. At 2, a motion of four
# frames' period is left a ninth of its size and one of a second all of it: without, the head's
# acceleration is 4.2 times that of recorded motion, with it 0.7 times (six training portraits).
HEAD_SMOOTHNESS: Final = 2.0
# What of the step that lips and lids take into a chunk is left out in its first two new frames.
FACE_EASE: Final = (0.35, 0.1)


def join_motion(latents_CTHW: Tensor, motion_slots: int) -> Tensor:
    """Latents [C, T, h, w] of a chunk, joined to what was handed over in its first slots: a single
    one is the portrait itself, before which nothing was shown."""
    return begin_motion(latents_CTHW) if motion_slots < 2 else continue_motion(latents_CTHW)


def continue_motion(latents_CTHW: Tensor) -> Tensor:
    """Latents [C, T, h, w] of a chunk whose first M = 5 frames were handed over and stay as they
    are. The head goes on from them without a step and along a smooth way; lips and lids, which may
    well move that fast, only give way a little in two frames.
    """
    codes = unpack_codes(latents_CTHW[None].float())[0]
    head, face = codes[:, :2].clone(), codes[MOTION_FRAMES:, 2:].clone()
    last = head[MOTION_FRAMES - 1]
    velocity = 0.5 * (last - head[MOTION_FRAMES - 3])
    step = head[MOTION_FRAMES] - (last + velocity)
    fade = 1 - torch.arange(len(face), device=head.device) / HEAD_FADE_FRAMES
    head[MOTION_FRAMES:] -= fade.clamp_min(0).square()[:, None, None, None] * step
    face_step = face[0] - codes[MOTION_FRAMES - 1, 2:]
    for frame, share in enumerate(FACE_EASE[: len(face)]):
        face[frame] -= share * face_step
    joined = torch.cat([smooth_head(head, MOTION_FRAMES)[MOTION_FRAMES:], face], dim=1)
    return pack_codes(torch.cat([codes[:MOTION_FRAMES], joined])[None])[0]


def begin_motion(latents_CTHW: Tensor) -> Tensor:
    """Latents [C, T, h, w] of a session's first chunk: the head leaves the portrait smoothly."""
    codes = unpack_codes(latents_CTHW[None].float())[0]
    return pack_codes(torch.cat([smooth_head(codes[:, :2], 1), codes[:, 2:]], dim=1)[None])[0]


def smooth_head(head_N2hw: Tensor, given: int) -> Tensor:
    """The way [N, 2, h, w] nearest to the sampled one that bends little (Whittaker, 1923).

    It minimises sum |x - head|^2 + HEAD_SMOOTHNESS sum |second difference of x|^2 over the frames
    after the first `given`, which keep their place and give it its direction.
    """
    own, from_given = (m.to(head_N2hw) for m in _smoother(len(head_N2hw) - given, given))
    flat = head_N2hw.flatten(1)
    way = own @ flat[given:] + from_given @ flat[:given]
    return torch.cat([flat[:given], way]).view_as(head_N2hw)


@cache
def _smoother(free: int, given: int) -> tuple[Tensor, Tensor]:
    """Matrices [free, free] and [free, given] that solve the minimum."""
    bend = torch.eye(free + given, dtype=torch.float64).diff(n=2, dim=0)
    penalty = HEAD_SMOOTHNESS * bend.T @ bend
    own = torch.linalg.inv(torch.eye(free, dtype=torch.float64) + penalty[given:, given:])
    return own.float(), (-own @ penalty[given:, :given]).float()
