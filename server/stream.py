"""One session's engine state: PCM in, encoded frames out. Lives on the engine thread only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visavis.server.conversation import FPS, EngineInput, MediaFrame
from visavis.server.encoder import VideoEncoder
from visavis.server.events import IdlePolicy

if TYPE_CHECKING:
    from visavis.engine.session import AvatarFrame, AvatarSession, SessionState

# Generated idle frames that the policy "loop" plays forwards and backwards.
LOOP_FRAMES = 100
# States kept to go back to after a cancel: more chunks than can be unsent at a time.
MAX_SNAPSHOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One step's work: take `input` in, then at most one chunk of speech, else of idle frames.

    Speech waits for a chunk of `min_chunk` frames (long ones cost less a frame), except at the end
    of an utterance.
    """

    input: EngineInput
    sent_ordinal: int
    allow_speech: bool
    min_chunk: int
    allow_idle: bool
    idle_policy: IdlePolicy
    idle_chunk_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step did.

    `next_chunk`: frames of the chunk that could be made without more input; `longest_chunk`: the
    most that it could be with more.
    """

    buffered_samples: int
    next_chunk: int | None
    longest_chunk: int
    committed: bool
    finished: bool
    abandoned: bool
    frames: int
    speech: bool
    generate_s: float
    encode_s: float


class EngineStream:
    """Wraps one AvatarSession with its encoder.

    session: the engine's session, opened at `rate`, the caller's sample rate in Hz.
    """

    def __init__(self, session: AvatarSession, encoder: VideoEncoder, *, rate: int) -> None:
        self._session = session
        self._encoder = encoder
        self._rate = rate
        self._num_repeats = 0
        self._generation = -1
        self._ordinal = 0
        self._committed = False
        self._snapshots: deque[tuple[int, SessionState]] = deque(maxlen=MAX_SNAPSHOTS)
        self._loop: deque[NDArray[np.uint8]] = deque(maxlen=LOOP_FRAMES)
        self._loop_position = 0
        self._last_pixels: NDArray[np.uint8] | None = None
        self._encode_s = 0.0

    def step(
        self,
        order: Order,
        emit: Callable[[MediaFrame], None],
        should_stop: Callable[[], bool],
    ) -> Outcome:
        """Do one step; frames go to `emit` one by one, as they are decoded."""
        started = time.monotonic()
        self._encode_s = 0.0
        self._take(order)
        chunk = self._session.next_chunk()
        enough = min(order.min_chunk, self._session.longest_chunk)
        long_enough = chunk is not None and (self._committed or chunk >= enough)
        speech = order.allow_speech and long_enough
        frames: Iterator[AvatarFrame] | None = None
        if speech:
            self._loop.clear()
            frames = self._session.generate(should_stop=should_stop)
        elif order.allow_idle:
            frames = self._idle(order, emit, should_stop)
        count, abandoned = 0, False
        if frames is not None:
            count, abandoned = self._emit_all(frames, order, emit, keep=not speech)
        chunk = self._session.next_chunk()
        finished = self._committed and chunk is None and not abandoned
        if finished:
            self._committed = False
        return Outcome(
            buffered_samples=self._session.buffered_samples,
            next_chunk=chunk,
            longest_chunk=self._session.longest_chunk,
            committed=self._committed,
            finished=finished,
            abandoned=abandoned,
            frames=count,
            speech=speech,
            generate_s=time.monotonic() - started - self._encode_s,
            encode_s=self._encode_s,
        )

    def close(self) -> None:
        """Free the encoder; the engine's session is garbage from here on."""
        self._encoder.close()

    def _take(self, order: Order) -> None:
        if order.input.reset:
            self._rewind(order.sent_ordinal)
        for pcm in order.input.audio:
            self._session.push_audio(np.frombuffer(pcm, dtype="<i2"))
        if order.input.commit:
            self._session.commit()
            self._committed = True

    def _rewind(self, sent_ordinal: int) -> None:
        """Forget the audio, and the chunks of which no frame was sent."""
        unsent = None
        while self._snapshots and self._snapshots[-1][0] > sent_ordinal:
            unsent = self._snapshots.pop()
        if unsent is not None:
            self._session.restore(unsent[1])
        self._session.clear_audio()
        self._committed = False
        self._loop.clear()

    def _emit_all(
        self,
        frames: Iterable[AvatarFrame],
        order: Order,
        emit: Callable[[MediaFrame], None],
        *,
        keep: bool,
    ) -> tuple[int, bool]:
        from visavis.engine.dit.sampler import ChunkAbandoned

        self._snapshots.append((self._ordinal, self._session.snapshot()))
        count = 0
        try:
            for frame in frames:
                if keep:
                    self._loop.append(frame.pixels)
                audio = frame.audio.astype("<i2").tobytes()
                emit(self._encode(frame.pixels, audio, order, idle=keep, last=frame.last))
                count += 1
        except ChunkAbandoned:
            return count, True
        return count, False

    def _encode(
        self, pixels: NDArray[np.uint8], audio: bytes, order: Order, *, idle: bool, last: bool
    ) -> MediaFrame:
        started = time.monotonic()
        # What was queued of another generation is gone, so nothing may be predicted from it.
        fresh = order.input.generation != self._generation
        self._generation = order.input.generation
        video, keyframe = self._encoder.encode(pixels, keyframe=fresh)
        self._encode_s += time.monotonic() - started
        self._last_pixels = pixels
        frame = MediaFrame(
            generation=order.input.generation,
            response=0 if idle else order.input.response,
            audio=audio,
            video=video,
            keyframe=keyframe,
            last=last,
            ordinal=self._ordinal,
        )
        self._ordinal += 1
        return frame

    def _silence(self) -> bytes:
        """Silence of one repeated frame; the lengths add up to the rate."""
        self._num_repeats += 1
        samples = (
            self._num_repeats * self._rate // FPS - (self._num_repeats - 1) * self._rate // FPS
        )
        return bytes(2 * samples)

    def _idle(
        self,
        order: Order,
        emit: Callable[[MediaFrame], None],
        should_stop: Callable[[], bool],
    ) -> Iterator[AvatarFrame] | None:
        """Frames to be generated, or None when repeats were emitted."""
        repeats = order.idle_chunk_frames - 5
        if order.idle_policy == "freeze" and self._last_pixels is not None:
            for _ in range(repeats):
                emit(self._encode(self._last_pixels, self._silence(), order, idle=True, last=False))
            return None
        if order.idle_policy == "loop" and len(self._loop) == LOOP_FRAMES:
            for _ in range(repeats):
                # 99, 98 ... 0, 1 ... 98, 99: there and back, so that no jump is seen.
                place = self._loop_position % (2 * LOOP_FRAMES - 2)
                self._loop_position += 1
                pixels = self._loop[abs(LOOP_FRAMES - 1 - place)]
                emit(self._encode(pixels, self._silence(), order, idle=True, last=False))
            return None
        self._loop_position = 1
        return self._session.generate_idle(order.idle_chunk_frames, should_stop=should_stop)
