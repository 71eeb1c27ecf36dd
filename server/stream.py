"""One session's engine state: PCM in, encoded frames out. Lives on the engine thread; pictures
may be compressed beside it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import structlog

from visavis.server.frame_clock import EncodingTime, FrameClock
from visavis.server.order import Order, Outcome, StreamState, Turn
from visavis.server.picture_line import PictureLine
from visavis.server.picture_stream import PictureStream
from visavis.server.timeline import FrameInTheMaking, MediaFrame, Picture

if TYPE_CHECKING:
    import torch

    from visavis.engine.batching import ChunkEnd, ChunkScheduler
    from visavis.engine.idle import IdleLoop
    from visavis.engine.session import AvatarFrame, AvatarSession

log = structlog.get_logger(__name__)

# More frames than a viewer can be behind.
REMEMBERED_ORDINALS = 256
# A picture that would come so long after its time is not made, so that its sound comes sooner.
LATE_S = 0.2


@dataclass(frozen=True, slots=True)
class IdleLoops:
    """Where idle frames that are shown again come from: one who listens keeps calmer."""

    idle: IdleLoop
    listening: IdleLoop


class EngineStream:
    """Wraps one AvatarSession with its pictures.

    session: the engine's session, opened at the caller's sample rate. line: where pictures are
    compressed; None: on the engine thread, as each is made.
    """

    def __init__(
        self,
        session: AvatarSession,
        pictures: PictureStream,
        loops: IdleLoops,
        line: PictureLine | None = None,
    ) -> None:
        self._session = session
        self._pictures = pictures
        self._line = line or PictureLine(None)
        self._loops = loops
        self._loop = loops.idle
        self._generation = -1
        self._ordinal = 0
        self._places: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_ORDINALS)
        self._committed = False
        self._keyframe = False
        self._response = 0
        self._last: AvatarFrame | None = None
        self._clock = FrameClock()
        self._work = EncodingTime()

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
        self._line.check()
        started_s = time.monotonic()
        self._take(order)
        ended: Future[Outcome] = Future()
        session = self._session
        session.num_steps = order.quality.num_steps
        self._attend(order.listening)
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
            chunk = session.begin_idle(
                order.idle_chunk_frames, listening=order.listening, should_stop=should_stop
            )
        prepare_s = time.monotonic() - started_s

        def on_frame(frame: AvatarFrame) -> None:
            if idle:
                self._note_idle(frame, order)
            emit(self._encode(frame, order, idle=idle))

        def on_end(end: ChunkEnd) -> None:
            if end.error is not None:
                ended.set_exception(end.error)
                return
            length = chunk.job.chunk_frames
            ended.set_result(
                self._outcome(order, end, length, speech=not idle, prepare_s=prepare_s)
            )

        scheduler.add(
            chunk,
            deadline_s=order.deadline_s,
            on_frame=on_frame,
            on_end=on_end,
            ahead_s=order.idle_ahead_s if idle else None,
            urgent=order.urgent and not idle,
        )
        return Turn(ended, idle)

    def recover(self, order: Order) -> Outcome:
        """The turn's chunk failed, for no fault of this session's: what came of it has come, and
        the rest is made anew in the next turn."""
        self._go_on_from(self._session.recover)
        return self._outcome(order, None, 0, speech=False)

    def save(self, last_ordinal: int, *, max_bytes: int) -> StreamState:
        """A copy that goes on after the frame `last_ordinal`; no turn may be under way.

        Raises ValueError when it is larger than `max_bytes`.
        """
        from visavis.engine.session_file import pack_session

        self._go_back(last_ordinal)
        self._line.wait()
        state = self._session.snapshot()
        oldest = state.history.end - len(state.history.moments)
        return StreamState(
            session=pack_session(state, max_bytes=max_bytes),
            ordinal=self._ordinal,
            places=tuple(place for place in self._places if place[1] >= oldest),
            committed=self._committed,
        )

    def load(self, state: StreamState, device: torch.device) -> None:
        """Go on from a copy of another stream of the same avatar, with the same model.

        Raises ValueError for a session that this engine cannot read.
        """
        from visavis.engine.session_file import unpack_session

        self._session.restore(unpack_session(state.session, device=device))
        self._ordinal, self._committed = state.ordinal, state.committed
        self._places.extend(state.places)

    def close(self) -> None:
        """End the engine's session and free the encoder."""
        self._session.close()
        self._line.close()
        self._pictures.close()

    def _attend(self, listening: bool) -> None:
        loop = self._loops.listening if listening else self._loops.idle
        if loop is not self._loop:
            self._loop.interrupt()
            self._loop = loop

    def _take(self, order: Order) -> None:
        taken = order.input
        try:
            if taken.reset:
                self._session.clear_audio()
                self._committed = False
                self._go_back(taken.shown_ordinal)
            elif order.cut_ordinal is not None:
                self._go_back(order.cut_ordinal)
        finally:
            # Going back computes and may fail: what the client said is not lost with it.
            self._keyframe |= taken.keyframe
            for pcm in taken.audio:
                self._session.push_audio(np.frombuffer(pcm, dtype="<i2"))
            if taken.commit:
                self._session.commit()
                self._committed = True

    def _go_back(self, ordinal: int) -> None:
        """The viewer saw the frame `ordinal` last (-1: none): what came after it never was, and
        what came before it was, also of a chunk that was abandoned."""
        undone = False
        while self._places and self._places[-1][0] > ordinal:
            self._places.pop()
            undone = True
        if undone:
            self._line.drop(ordinal)
            self._loop.interrupt()
            self._last = None
            # What the client has not got cannot be what the next picture is predicted from.
            self._keyframe = True
        if undone or self._places:
            self._go_on_from(self._session.rewind)

    def _go_on_from(self, go_back: Callable[[int], None]) -> None:
        """`go_back` to the engine's frame that was shown last, or from rest; or to the nearest to
        it: a client so far behind gets a jump and not an end."""
        from visavis.engine.history import RewindError

        try:
            go_back(self._places[-1][1] if self._places else -1)
        except RewindError as error:
            log.warning(
                "no way back to the frame that was seen", reason=str(error), instead=error.nearest
            )
            if error.nearest is None:
                return
            go_back(error.nearest)
            if self._places:
                self._places[-1] = (self._places[-1][0], error.nearest)

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
        prepare_s: float = 0.0,
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
        work = self._work.take()
        chunk_s = 0.0 if end is None else prepare_s + end.busy_s - work.waited_s
        return Outcome(
            buffered_samples=session.buffered_samples,
            longest_chunk=longest,
            ask_again_s=ask_again_s,
            finished=finished,
            abandoned=abandoned,
            chunk_frames=chunk_frames,
            frames=end.frames if end is not None else repeated,
            speech=speech,
            busy_s=work.beside_s + (work.here_s if end is None else chunk_s),
            encode_s=work.beside_s + work.here_s,
            wait_s=None if end is None else end.wait_s,
            prepare_s=prepare_s,
            denoise_s=0.0 if end is None else end.denoise_s,
            decode_s=0.0 if end is None else end.decode_s,
        )

    def _note_idle(self, frame: AvatarFrame, order: Order) -> None:
        """Frames are large: they are kept only where they may be shown again."""
        if order.idle_policy == "loop":
            self._loop.add(frame)
        else:
            self._loop.interrupt()

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
        # What was queued of another generation is gone, so nothing may be predicted from it.
        fresh = order.input.generation != self._generation or self._keyframe
        self._generation, self._keyframe = order.input.generation, False
        response = 0 if idle else order.input.response
        # An answer is seen from its first frame on, whatever rate the pictures have.
        begins = response not in (0, self._response)
        self._response = response
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        self._last = frame
        self._places.append((ordinal, frame.index))
        make = partial(self._picture, frame, order, fresh=fresh, begins=begins, idle=idle)
        blank = MediaFrame(
            generation=order.input.generation,
            response=response,
            audio=frame.audio.astype("<i2").tobytes(),
            video=b"",
            keyframe=False,
            last=frame.last,
            ordinal=ordinal,
        )
        # Somebody waits for the first picture of an answer, and another thread would have to begin.
        if not self._line.beside or (begins and self._line.idle):
            self._line.check()
            return blank.with_picture(self._work.here(make))
        add = partial(self._line.add, ordinal, partial(self._work.beside, make))
        return FrameInTheMaking.of(blank, self._work.waiting(add))

    def _picture(
        self, frame: AvatarFrame, order: Order, *, fresh: bool, begins: bool, idle: bool
    ) -> Picture:
        """Compress a frame, all before it having been."""
        self._pictures.limit(scale=order.quality.scale, fps=order.quality.fps)
        late = self._clock.is_late(order, time.monotonic(), late_s=LATE_S)
        if late and not (idle or fresh or begins):
            self._clock.num_late += 1
            # One that has no picture at this rate anyway is not late.
            return Picture(b"", False, late=self._pictures.leave_out())
        self._clock.num_late = 0
        return Picture(*self._pictures.encode(frame.pixels, keyframe=fresh, wanted=begins))
