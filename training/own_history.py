"""Chunks that go on from the student's own history, with a target that leads back to the data.

The paper trains the last of k chunks that the student made itself (sections 1.8, 1.9); a critic
says where that chunk should be. Here speech and motion are paired, so the target can be written
down: the recorded motion, plus what the student's last frame was off by, fading. A student that has
gone astray learns to come back, and how fast, instead of to jump.

Legend: B samples, N frames, C channels, T latent frames, h w control grid.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_CHANNELS, pack_codes, unpack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.dit_data import MotionWindows, WindowBatch
from visavis.training.pixel_hand_over import PixelHandOver
from visavis.training.rollout import ChunkConditions, Network
from visavis.training.self_rollout import reach_last_chunk, sequence_frames

# Frames in which an error falls to a third: the head may take its time, lips and lids may not. The
# head's begins flat, as real sway does: a slope would ask for a jolt at the border.
HEAD_FADE: Final = 14.0
FACE_FADE: Final = 2.0


def own_history_batch(
    student: Network,
    windows: MotionWindows,
    rng: np.random.Generator,
    generator: torch.Generator,
    *,
    batch: int,
    chunks: int,
    num_steps: int,
    from_portrait: bool,
    pixels: PixelHandOver | None = None,
    join: bool = True,
) -> WindowBatch:
    """The last of `chunks` >= 2 chunks, those before it made by the student without gradient."""
    if chunks < 2:
        raise ValueError(f"chunks={chunks} leaves no history; draw a window instead")
    sequences = windows.draw_sequences(
        rng, batch, sequence_frames(chunks), from_portrait=from_portrait
    )
    last = reach_last_chunk(
        student,
        windows.hearing,
        sequences,
        chunks,
        generator,
        num_steps=num_steps,
        from_portrait=from_portrait,
        pixels=pixels,
        join=join,
    )
    if last.truth is None or not isinstance(last.conditions, ChunkConditions):
        raise TypeError("own history needs recorded motion and the embedded model's conditions")
    target = returning(unpack_codes(last.motion), unpack_codes(last.truth))
    slots = last.motion.shape[2]
    latents = torch.cat([last.motion, pack_codes(target)[:, :, slots:]], dim=2)
    return WindowBatch(
        latents=latents,
        audio=last.conditions.audio,
        layout=last.conditions.layout,
        focus=torch.ones(batch, *latents.shape[3:]),
        motion_slots=torch.full((batch,), slots),
        portraits=sequences.portraits,
    )


def returning(own_BM6hw: Tensor, truth_BN6hw: Tensor) -> Tensor:
    """Codes [B, N, 6, h, w]: the own motion frames, then the truth that is returned to."""
    if own_BM6hw.shape[1] != MOTION_FRAMES:
        raise ValueError(f"own history has {own_BM6hw.shape[1]} frames; needs {MOTION_FRAMES}")
    missed = own_BM6hw[:, -1:] - truth_BN6hw[:, MOTION_FRAMES - 1 : MOTION_FRAMES]
    after = torch.arange(1, truth_BN6hw.shape[1] - MOTION_FRAMES + 1).view(1, -1, 1, 1, 1)
    head = torch.exp(-((after / HEAD_FADE) ** 2)).expand(-1, -1, 2, -1, -1)
    face = torch.exp(-after / FACE_FADE).expand(-1, -1, CODE_CHANNELS - 2, -1, -1)
    left = torch.cat([head, face], dim=2) * missed
    return torch.cat([own_BM6hw, truth_BN6hw[:, MOTION_FRAMES:] + left], dim=1)
