"""Sessions that `visavis bench quantize` compares: the same seed and sound, chunk after chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.engine.face.framing import Portrait
from visavis.engine.long_run import NEW_FRAMES, LongRun
from visavis.engine.plan import ENGINE_RATE, ENGINE_SAMPLES_PER_FRAME
from visavis.server.audio_file import AudioFile
from visavis.server.bench import babble

CHUNK_SAMPLES = NEW_FRAMES * ENGINE_SAMPLES_PER_FRAME
BABBLE_S = 60
SEED = 1
# Of the layout's maps, the mouth's place; of a code's channels, how far the lower lip is from the
# upper one, down.
MOUTH_MAP = 2
OPENING_CHANNEL = 5

Pixels = NDArray[np.uint8]
Sound = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Made:
    """One chunk: the pictures that are looked at, [n, H, W, 3], and how the face moves in it.

    `motion` are the codes [28, 6, 16, 16] in pixels of the 256-pixel frame and `opening` [28] the
    mouth's in them; None where the codec has no codes.
    """

    pictures: Pixels
    motion: NDArray[np.float32] | None = None
    opening: NDArray[np.float32] | None = None


def read_sound(speech: Path | None) -> Sound:
    """A recording at 16 kHz, float32 in -1..1; noise that swells like syllables without one.

    Raises:
        AudioFileError: the file cannot be read.
    """
    if speech is None:
        return np.asarray(babble(BABBLE_S * ENGINE_RATE) / 32768, np.float32)
    with AudioFile(speech) as file:
        samples = np.concatenate(list(file.blocks())).astype(np.float32) / 32768
        rate = file.rate
    return np.asarray(soxr.resample(samples, rate, ENGINE_RATE), np.float32)


def loudness(sound: Sound, chunks: int) -> NDArray[np.float32]:
    """Root mean square of the sound of each frame [28 * chunks], the recording going round."""
    index = np.arange(chunks * CHUNK_SAMPLES) % len(sound)
    frames = sound[index].reshape(-1, ENGINE_SAMPLES_PER_FRAME)
    return np.asarray(np.sqrt(np.square(frames).mean(axis=1)), np.float32)


def session_chunks(
    engine: AvatarEngine, portrait: Path | Portrait, sound: Sound, frames: int
) -> Iterator[Made]:
    """A session that is talked to without a pause or an end; `frames` of each chunk are shown.

    Raises:
        ImageError, NoFaceError: the portrait cannot be used.
    """
    avatar = engine.prepare_avatar(portrait)
    if isinstance(engine.pipeline.codec, MotionCodec):
        return _coded_chunks(engine, engine.pipeline.codec, avatar, sound, frames)
    return _pixel_chunks(engine, avatar, sound, frames)


def _coded_chunks(
    engine: AvatarEngine, codec: MotionCodec, avatar: Avatar, sound: Sound, frames: int
) -> Iterator[Made]:
    """Where the hand-over needs no pictures, only those that are looked at are rendered."""
    run = LongRun(engine.pipeline)
    session = run.open(avatar, sound, SEED)
    place = avatar.conditions.reference.layout[0, MOUTH_MAP]
    scale = torch.tensor(CODE_SCALE, device=place.device)[:, None, None]
    while True:
        (codes,) = run.advance([session])
        motion = codes.float() * scale
        opening = (motion[:, OPENING_CHANNEL] * place).sum(dim=(1, 2)) / place.sum()
        yield Made(
            run.render(codes[_looked_at(frames)], session),
            motion.cpu().numpy(),
            opening.cpu().numpy(),
        )


def _pixel_chunks(
    engine: AvatarEngine, avatar: Avatar, sound: Sound, frames: int
) -> Iterator[Made]:
    session = engine.open_session(avatar, input_rate=ENGINE_RATE, seed=SEED)
    pcm = (sound * 32767).astype(np.int16)
    position, wanted = 0, _looked_at(frames)
    while True:
        session.push_audio(pcm[(position + np.arange(CHUNK_SAMPLES)) % len(pcm)])
        position += CHUNK_SAMPLES
        pictures: list[Pixels] = []
        while session.next_chunk() is not None:
            pictures += [frame.pixels for frame in session.generate()]
        yield Made(np.stack(pictures)[[i for i in wanted if i < len(pictures)]])


def _looked_at(frames: int) -> list[int]:
    """Indices of so many frames of a chunk, evenly spread, the last among them."""
    spread = np.linspace(NEW_FRAMES - 1, 0, frames, endpoint=False)
    return sorted({round(float(i)) for i in spread})
