"""One rendering: what is asked for, how far it is, and the work itself."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from visavis.engine.avatar_frame import AvatarFrame
from visavis.engine.parallel.loss import GroupLostError
from visavis.engine.plan import FPS
from visavis.server.audio_file import AudioFile
from visavis.server.model_host import ModelHost
from visavis.server.mp4_writer import Mp4Writer
from visavis.server.provenance import Provenance

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import Avatar
    from visavis.engine.batching import ChunkEnd
    from visavis.engine.session import AvatarSession

Status = Literal["queued", "in_progress", "completed", "failed"]
# A chunk of a video may wait so long for live sessions, whose chunks are due within a second.
PATIENCE_S = 60.0
READ_AHEAD_S = 2


class VideoError(ValueError):
    """Why a video was not made, as a sentence for the user."""


@dataclass(slots=True, eq=False, kw_only=True)
class VideoJob:
    """A video that is to be made; `folder` holds its files, and goes with it."""

    id: str
    owner: str | None
    avatar_id: str
    folder: Path
    seed: int = 0
    consent: bool | None = None
    status: Status = "queued"
    error: str | None = None
    frames: int = 0
    total_frames: int | None = None
    created_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    abandoned: bool = False

    @property
    def speech(self) -> Path:
        """The recording that is spoken."""
        return self.folder / "speech"

    @property
    def video(self) -> Path:
        """The finished file."""
        return self.folder / "video.mp4"

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in ("completed", "failed")

    @property
    def progress(self) -> int:
        """0..100; 100 only when the file is there."""
        if self.status == "completed":
            return 100
        return min(99, 100 * self.frames // self.total_frames) if self.total_frames else 0

    def fail(self, why: str) -> None:
        """End without a video; the recording is not kept."""
        if not self.over:
            self.status, self.error, self.ended_s = "failed", why, time.time()
            shutil.rmtree(self.folder, ignore_errors=True)


async def render_job(
    job: VideoJob, host: ModelHost, *, model: str, watermark: str, max_s: float
) -> None:
    """Make the video, chunk by chunk, on the engine that live sessions use.

    Raises VideoError or another ValueError for what is wrong with the input.
    """
    avatar = await host.prepare_stored(job.avatar_id)
    audio = await asyncio.to_thread(AudioFile, job.speech)
    try:
        claimed_s = audio.duration_s
        if claimed_s is not None:
            _check_length(claimed_s, max_s)
            job.total_frames = max(1, round(claimed_s * FPS))
        size = host.engine.frame_size
        provenance = Provenance(model=model, consent=job.consent)
        part = job.folder / "video.part"
        writer = await asyncio.to_thread(
            Mp4Writer, part, size, audio.rate, provenance=provenance, watermark=watermark
        )
        try:
            await _speak(job, host, avatar, audio, writer, max_s)
        except BaseException as error:
            writer.__exit__(type(error))
            raise
        await asyncio.to_thread(writer.__exit__, None)
        part.replace(job.video)
    finally:
        audio.close()
        job.speech.unlink(missing_ok=True)


async def _speak(
    job: VideoJob,
    host: ModelHost,
    avatar: Avatar,
    audio: AudioFile,
    writer: Mp4Writer,
    max_s: float,
) -> None:
    opening = partial(host.engine.open_session, avatar, input_rate=audio.rate, seed=job.seed)
    session = await host.worker.run(opening, deadline_s=time.monotonic() + PATIENCE_S)
    blocks = audio.blocks()
    samples, ended = 0, False
    while True:
        while not ended and session.buffered_samples < READ_AHEAD_S * audio.rate:
            block = await asyncio.to_thread(_next_block, blocks)
            if block is None:
                session.commit()
                ended = True
            else:
                samples += len(block)
                _check_length(samples / audio.rate, max_s)
                session.push_audio(block)
        if session.next_chunk() is None:
            return
        frames = await _chunk_of_any_group(job, host, session)
        await asyncio.to_thread(_write_all, writer, frames)
        job.frames += len(frames)


async def _chunk_of_any_group(
    job: VideoJob, host: ModelHost, session: AvatarSession
) -> list[AvatarFrame]:
    """`_chunk`; made anew when it was lost with processes of the engine."""
    while True:
        try:
            return await _chunk(job, host, session)
        except GroupLostError:
            recover = partial(session.recover, -1)
            await host.worker.run(recover, deadline_s=time.monotonic() + PATIENCE_S)
        await host.computing.wait()
        host.check_computes()


async def _chunk(job: VideoJob, host: ModelHost, session: AvatarSession) -> list[AvatarFrame]:
    """The frames of the next chunk."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    frames: list[AvatarFrame] = []

    def settle(end: ChunkEnd) -> None:
        if done.done():
            return
        if end.error is not None:
            done.set_exception(end.error)
        elif end.abandoned:
            done.set_exception(VideoError("the rendering was given up"))
        else:
            done.set_result(None)

    def on_end(end: ChunkEnd) -> None:
        loop.call_soon_threadsafe(settle, end)

    def start() -> None:
        chunk = session.begin(should_stop=lambda: job.abandoned)
        host.scheduler.add(
            chunk,
            deadline_s=time.monotonic() + PATIENCE_S,
            on_frame=frames.append,
            on_end=on_end,
        )

    await host.worker.run(start, deadline_s=time.monotonic() + PATIENCE_S)
    await done
    return frames


def _next_block(blocks: Iterator[NDArray[np.int16]]) -> NDArray[np.int16] | None:
    return next(blocks, None)


def _write_all(writer: Mp4Writer, frames: list[AvatarFrame]) -> None:
    for frame in frames:
        writer.write(frame)


def _check_length(seconds: float, max_s: float) -> None:
    if seconds > max_s:
        raise VideoError(f"the recording is longer than {max_s:g} s; cut it into shorter ones")
