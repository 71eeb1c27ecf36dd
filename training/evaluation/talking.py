"""The whole engine on held-out portraits and voices, as a session shows them.

Legend: N frames, H W pixels, h w control grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.plan import CHUNK_LENGTHS
from visavis.engine.session import AvatarSession
from visavis.training.evaluation.statistics import sharpness
from visavis.training.landmarks import (
    IndependentLandmarker,
    Landmarks,
    face_found,
    mouth_opening,
)
from visavis.training.speech.eval_set import EvalClip
from visavis.training.speech.phonemes import SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What a session showed: frames uint8 [N, H, W, 3], their codes [N, 6, h, w], and the indices
    of the frames that begin a chunk, without the first."""

    frames: NDArray[np.uint8]
    codes: Tensor
    borders: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One portrait speaking one clip, with the landmarks `points` [N, 478, 2] of its frames."""

    portrait: str
    clip: EvalClip
    film: Film
    points: Landmarks

    @property
    def opening(self) -> NDArray[np.float64]:
        """Of the mouth [N], in eye distances."""
        return mouth_opening(self.points)


def speak(
    engine: AvatarEngine,
    portrait: str,
    avatar: Avatar,
    clip: EvalClip,
    landmarker: IndependentLandmarker,
    *,
    seed: int,
    num_steps: int,
    chunk_frames: int = CHUNK_LENGTHS[-1],
) -> Talk:
    """Stream the clip through a fresh session and look at the result."""
    film = play(
        engine,
        avatar,
        as_int16(clip.pcm),
        seed=seed,
        num_steps=num_steps,
        chunk_frames=chunk_frames,
    )
    return Talk(portrait=portrait, clip=clip, film=film, points=landmarker.detect(film.frames))


def play(
    engine: AvatarEngine,
    avatar: Avatar,
    pcm: NDArray[np.int16],
    *,
    seed: int,
    num_steps: int,
    chunk_frames: int = CHUNK_LENGTHS[-1],
) -> Film:
    """A fresh session speaks the samples (16 kHz) to their end, in chunks that long at most."""
    session = engine.open_session(avatar, input_rate=SAMPLE_RATE, seed=seed, num_steps=num_steps)
    session.push_audio(pcm)
    session.commit()
    return drain(session, chunk_frames)


def as_int16(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples in -1..1 as a session takes them."""
    samples: NDArray[np.int16] = np.round(np.clip(pcm, -1, 1) * 32767).astype(np.int16)
    return samples


def drain(session: AvatarSession, chunk_frames: int = CHUNK_LENGTHS[-1]) -> Film:
    """All frames of the committed audio, in chunks of `chunk_frames` at most."""
    frames: list[NDArray[np.uint8]] = []
    codes: list[Tensor] = []
    borders = []
    while (length := session.next_chunk()) is not None:
        borders.append(len(frames))
        for frame in session.generate(chunk_frames=min(length, chunk_frames)):
            frames.append(frame.pixels)
            if frame.pose is not None:
                codes.append(frame.pose)
    return Film(frames=np.stack(frames), codes=torch.stack(codes), borders=tuple(borders[1:]))


def speaks(clip: EvalClip) -> bool:
    """Whether there is speech in it; one clip has only noise."""
    return clip.voice != "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endurance:
    """Many chunks on end; ratios compare the last tenth with the first.

    `film` holds one frame of chunk 1, 10, 50 and the last.
    """

    chunks: int
    sharpness_ratio: float
    face_found: float
    motion_ratio: float
    film: NDArray[np.uint8]


def endure(
    engine: AvatarEngine,
    avatar: Avatar,
    clip: EvalClip,
    landmarker: IndependentLandmarker,
    *,
    chunks: int,
    seed: int,
    num_steps: int,
) -> Endurance:
    """Repeat the clip until so many chunks are made; frames are judged and dropped as they come."""
    session = engine.open_session(avatar, input_rate=SAMPLE_RATE, seed=seed, num_steps=num_steps)
    sharp, motion, found, film = [], [], [], []
    for number in range(chunks):
        if session.buffered_samples < 2 * SAMPLE_RATE:
            session.push_audio(as_int16(clip.pcm))
        frames = np.stack([frame.pixels for frame in session.generate()])
        sharp.append(float(sharpness(frames).mean()))
        motion.append(float(frames.astype(np.float32).std(axis=0).mean()))
        found.append(face_found(landmarker.detect(frames[::7])))
        if number + 1 in {1, 10, 50, chunks}:
            film.append(frames[-1])
    tenth = max(chunks // 10, 1)
    return Endurance(
        chunks=chunks,
        sharpness_ratio=float(np.mean(sharp[-tenth:]) / np.mean(sharp[:tenth])),
        face_found=float(np.mean(found)),
        motion_ratio=float(np.mean(motion[-tenth:]) / np.mean(motion[:tenth])),
        film=np.stack(film),
    )
