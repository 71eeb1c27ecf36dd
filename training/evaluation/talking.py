"""The whole engine on held-out portraits and voices, judged from its frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.session import AvatarSession
from visavis.training.evaluation.statistics import boundary_jump_ratio, sharpness
from visavis.training.landmarks import (
    IndependentLandmarker,
    Landmarks,
    eye_opening,
    face_found,
    mouth_opening,
)
from visavis.training.speech.eval_set import EvalClip
from visavis.training.speech.phonemes import SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One portrait speaking one clip; openings [N], frames uint8 [N, H, W, 3], their landmarks
    `points` [N, 478, 2]."""

    portrait: str
    clip: EvalClip
    frames: NDArray[np.uint8]
    points: Landmarks
    opening: NDArray[np.float64]
    eyes: NDArray[np.float64]
    face_found: float
    boundary_jump_ratio: float


def speak(
    engine: AvatarEngine,
    portrait: str,
    avatar: Avatar,
    clip: EvalClip,
    landmarker: IndependentLandmarker,
    *,
    seed: int,
    num_steps: int = 4,
) -> Talk:
    """Stream the clip through a fresh session and look at the result."""
    session = engine.open_session(avatar, input_rate=SAMPLE_RATE, seed=seed, num_steps=num_steps)
    session.push_audio(as_int16(clip))
    session.commit()
    frames, borders = drain(session)
    points = landmarker.detect(frames)
    return Talk(
        portrait=portrait,
        clip=clip,
        frames=frames,
        points=points,
        opening=mouth_opening(points),
        eyes=eye_opening(points),
        face_found=face_found(points),
        boundary_jump_ratio=boundary_jump_ratio(frames, borders),
    )


def as_int16(clip: EvalClip) -> NDArray[np.int16]:
    """The clip's samples as a session takes them."""
    samples: NDArray[np.int16] = np.round(np.clip(clip.pcm, -1, 1) * 32767).astype(np.int16)
    return samples


def drain(session: AvatarSession) -> tuple[NDArray[np.uint8], list[int]]:
    """All frames of the committed audio [N, H, W, 3], and where chunks after the first begin."""
    frames: list[NDArray[np.uint8]] = []
    borders = []
    while session.next_chunk() is not None:
        borders.append(len(frames))
        frames += [frame.pixels for frame in session.generate()]
    return np.stack(frames), borders[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endurance:
    """A hundred chunks on end; ratios compare the last tenth with the first.

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
) -> Endurance:
    """Repeat the clip until so many chunks are made; frames are judged and dropped as they come."""
    session = engine.open_session(avatar, input_rate=SAMPLE_RATE, seed=seed)
    sharp, motion, found, film = [], [], [], []
    for number in range(chunks):
        if session.buffered_samples < 2 * SAMPLE_RATE:
            session.push_audio(as_int16(clip))
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
