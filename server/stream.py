"""One session's engine state: PCM in, encoded frames out. Lives on the engine thread only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import structlog

from visavis.server.chunk_policy import ChunkPolicy
from visavis.server.conversation import EngineInput, MediaFrame
from visavis.server.events import IdlePolicy
from visavis.server.picture_stream import PictureStream

if TYPE_CHECKING:
    from visavis.engine.batching import ChunkEnd, ChunkScheduler
    from visavis.engine.idle import IdleLoop
    from visavis.engine.session import AvatarFrame, AvatarSession

log = structlog.get_logger(__name__)

# More frames than a viewer can be behind.
REMEMBERED_ORDINALS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One turn's work: take `input` in, then at most one chunk of speech, else of idle frames.

    `deadline_s`: when its first frame is wanted, on the monotonic clock. `urgent`: somebody waits
    for it. `cut_ordinal`: idle frames after that one were thrown away, the face goes on from it.
    `num_steps`: denoising steps. `idle_frames`: how many to show again where that is the policy.
    `idle_ahead_s`: idle frames are decoded so long before their time and no earlier.
    """

    input: EngineInput
    speech: ChunkPolicy | None
    allow_idle: bool
    idle_policy: IdlePolicy
    idle_chunk_frames: int
    idle_frames: int
    idle_ahead_s: float
    deadline_s: float
    urgent: bool
    num_steps: int
    cut_ordinal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a turn did.

    `longest_chunk`: that can be made next, given the audio; `ask_again_s`: when a shorter chunk
    than was hoped for will do. `chunk_frames`: the chunk that was made, 0 for none; `busy_s`: the
    model's time for it, encoding included; `wait_s`: from its start to its first frame.
    """

    buffered_samples: int
    longest_chunk: int
    ask_again_s: float | None
    finished: bool
    abandoned: bool
    chunk_frames: int
    frames: int
    speech: bool
    busy_s: float
    encode_s: float
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was begun: idle or not, and its end."""

    ended: Future[Outcome]
    idle: bool = False


class EngineStream:
    """Wraps one AvatarSession with its pictures.

    session: the engine's session, opened at the caller's sample rate. loop: where idle frames that
    are shown again come from.
    """

    def __init__(self, session: AvatarSession, pictures: PictureStream, loop: IdleLoop) -> None:
        self._session = session
        self._pictures = pictures
        self._loop = loop
        self._generation = -1
        self._ordinal = 0
        self._places: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_ORDINALS)
        self._committed = False
        self._keyframe = False
        self._response = 0
        self._last: AvatarFrame | None = None
        self._encode_s = 0.0

    def start(
        self,
        order: Order,
        scheduler: ChunkScheduler,
        emit: Callable[[MediaFrame], None],
        should_stop: Callable[[], bool],
    ) -> Turn:
        """Begin a turn; frames go to `emit` one by one, as they are decoded.

        It ends with the chunk, at once if there is none to make.
        """
        self._encode_s = 0.0
        self._take(order)
        ended: Future[Outcome] = Future()
        session = self._session
        session.num_steps = order.num_steps
        speech, idle = self._speech_chunk(order), False
        if speech is not None:
            self._loop.interrupt()
            chunk = session.begin(chunk_frames=speech, should_stop=should_stop)
        elif not order.allow_idle:
            ended.set_result(self._outcome(order, None, 0, speech=False))
            return Turn(ended)
        else:
            repeated = self._repeat(order, emit)
            if repeated:
                ended.set_result(self._outcome(order, None, 0, speech=False, repeated=repeated))
                return Turn(ended)
            idle = True
            chunk = session.begin_idle(order.idle_chunk_frames, should_stop=should_stop)

        def on_frame(frame: AvatarFrame) -> None:
            if idle:
                self._loop.add(frame)
            emit(self._encode(frame, order, idle=idle))

        def on_end(end: ChunkEnd) -> None:
            if end.error is not None:
                ended.set_exception(end.error)
                return
            length = chunk.job.chunk_frames
            ended.set_result(self._outcome(order, end, length, speech=not idle))

        scheduler.add(
            chunk,
            deadline_s=order.deadline_s,
            on_frame=on_frame,
            on_end=on_end,
            ahead_s=order.idle_ahead_s if idle else None,
            urgent=order.urgent and not idle,
        )
        return Turn(ended, idle)

    def close(self) -> None:
        """Free the encoder; the engine's session is garbage from here on."""
        self._session.clear_audio()
        self._pictures.close()

    def _take(self, order: Order) -> None:
        taken = order.input
        if taken.reset:
            self._session.clear_audio()
            self._committed = False
            self._go_back(taken.shown_ordinal)
        elif order.cut_ordinal is not None:
            self._go_back(order.cut_ordinal)
        self._keyframe |= taken.keyframe
        for pcm in taken.audio:
            self._session.push_audio(np.frombuffer(pcm, dtype="<i2"))
        if taken.commit:
            self._session.commit()
            self._committed = True

    def _go_back(self, ordinal: int) -> None:
        """The viewer saw the frame `ordinal` last (-1: none): what came after it never was."""
        undone = False
        while self._places and self._places[-1][0] > ordinal:
            self._places.pop()
            undone = True
        if not undone:
            return
        self._loop.interrupt()
        self._last = None
        # What the client has not got cannot be what the next picture is predicted from.
        self._keyframe = True
        from visavis.engine.history import RewindError

        try:
            self._session.rewind(self._places[-1][1] if self._places else -1)
        except RewindError as error:  # a client so far behind gets a jump and not an end
            log.warning("no way back to the frame that was seen", reason=str(error))

    def _speech_chunk(self, order: Order) -> int | None:
        if order.speech is None:
            return None
        return order.speech.choose(
            ready=self._session.ready_frames,
            committed=self._committed,
            longest=self._session.longest_chunk,
        )

    def _outcome(
        self,
        order: Order,
        end: ChunkEnd | None,
        chunk_frames: int,
        *,
        speech: bool,
        repeated: int = 0,
    ) -> Outcome:
        session = self._session
        ready, longest = session.ready_frames, session.longest_chunk
        abandoned = end is not None and end.abandoned
        finished = self._committed and not ready and not abandoned
        if finished:
            self._committed = False
        ask_again_s = None
        if order.speech is not None and end is None:
            ask_again_s = order.speech.wait_s(ready=ready, longest=longest)
        return Outcome(
            buffered_samples=session.buffered_samples,
            longest_chunk=longest,
            ask_again_s=ask_again_s,
            finished=finished,
            abandoned=abandoned,
            chunk_frames=chunk_frames,
            frames=end.frames if end is not None else repeated,
            speech=speech,
            busy_s=end.busy_s if end is not None else self._encode_s,
            encode_s=self._encode_s,
            wait_s=None if end is None else end.wait_s,
        )

    def _repeat(self, order: Order, emit: Callable[[MediaFrame], None]) -> int:
        """Idle without the model, as the policy is: how many frames were shown again."""
        count = 0
        while count < order.idle_frames:
            again = self._last if order.idle_policy == "freeze" else None
            if order.idle_policy == "loop":
                again = self._loop.next()
            if again is None:
                break
            emit(self._encode(self._session.replay(again), order, idle=True))
            count += 1
        return count

    def _encode(self, frame: AvatarFrame, order: Order, *, idle: bool) -> MediaFrame:
        started = time.monotonic()
        # What was queued of another generation is gone, so nothing may be predicted from it.
        fresh = order.input.generation != self._generation or self._keyframe
        self._generation, self._keyframe = order.input.generation, False
        response = 0 if idle else order.input.response
        # An answer is seen from its first frame on, whatever rate the pictures have.
        begins = response not in (0, self._response)
        self._response = response
        video, keyframe = self._pictures.encode(frame.pixels, keyframe=fresh, wanted=begins)
        self._encode_s += time.monotonic() - started
        self._last = frame
        self._places.append((self._ordinal, frame.index))
        encoded = MediaFrame(
            generation=order.input.generation,
            response=response,
            audio=frame.audio.astype("<i2").tobytes(),
            video=video,
            keyframe=keyframe,
            last=frame.last,
            ordinal=self._ordinal,
        )
        self._ordinal += 1
        return encoded
