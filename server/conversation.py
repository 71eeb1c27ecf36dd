"""The state machine of one session: responses, epochs, the media timeline. No I/O, no clock.

Callers bring the time as `now_s` (monotonic seconds) and receive the events to be sent, in order.
The law that everything here serves: each `response.created` is followed by exactly one
`response.done`, whatever comes in between.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from visavis.server import events as ev
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import Flag, Header, Kind

FPS = 25
FRAME_US = 1_000_000 // FPS
MAX_OPEN_RESPONSES = 32
# Ids of finished responses are remembered: audio still under way to a cancelled one is dropped.
REMEMBERED_IDS = 256
APPENDED_EVERY_S = 0.5
# How long after its frames should have been shown a response waits for the client's word.
PLAYBACK_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFrame:
    """One encoded frame on its way out; its place on the timeline is given when it is sent.

    `audio` is pcm16 at the caller's rate, `generation` the engine run that made it and `ordinal`
    its number in the engine's stream.
    """

    generation: int
    response: int
    audio: bytes
    video: bytes
    keyframe: bool
    last: bool = False
    ordinal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInput:
    """What the engine is to take in before its next chunk."""

    generation: int
    response: int
    audio: tuple[bytes, ...]
    commit: bool
    reset: bool


@dataclass(slots=True, kw_only=True)
class Response:
    """One utterance, from its first audio to its `response.done`."""

    id: str
    index: int
    pending: deque[bytes] = field(default_factory=deque)
    pending_samples: int = 0
    received_samples: int = 0
    fed_samples: int = 0
    committed: bool = False
    commit_fed: bool = False
    generated: int = 0
    sent: int = 0
    finished: bool = False
    first_pts_us: int | None = None
    end_pts_us: int = 0
    done_by_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stamped:
    """A frame with its header and the events that go right before and after it."""

    before: list[ev.ServerEvent]
    header: Header
    frame: MediaFrame
    after: list[ev.ServerEvent]


class Conversation:
    """One session's protocol state.

    rate: the caller's audio in Hz. max_buffered_input_ms: the most audio accepted ahead.
    """

    def __init__(self, *, rate: int, max_buffered_input_ms: int) -> None:
        self.rate = rate
        self.max_buffered_input_ms = max_buffered_input_ms
        self.epoch = 0
        self.generation = 0
        self.next_index = 0
        self.last_ordinal = -1
        self.ready: deque[MediaFrame] = deque()
        self.state: ev.AvatarState = "idle"
        self.played_pts_us: int | None = None
        self._base_state: ev.AvatarState = "idle"
        self._seq = 0
        self._open: deque[Response] = deque()
        self._done_ids: OrderedDict[str, ev.ResponseStatus] = OrderedDict()
        self._num_responses = 0
        self._engine_samples = 0
        self._reset = False
        self._discontinuity = False
        self._appended_s = float("-inf")
        self._closed = False

    # Input

    @property
    def buffered_ms(self) -> float:
        """Audio received and not consumed by the engine, in milliseconds."""
        samples = self._engine_samples + sum(r.pending_samples for r in self._open)
        return samples * 1000 / self.rate

    @property
    def next_pts_us(self) -> int:
        """The timeline position of the next frame."""
        return self.next_index * FRAME_US

    @property
    def head(self) -> Response | None:
        """The response that the engine works on."""
        return next((r for r in self._open if not r.finished), None)

    @property
    def has_open_responses(self) -> bool:
        return bool(self._open)

    @property
    def has_committed_responses(self) -> bool:
        """Whether something remains that comes to its end without further input."""
        return any(r.committed for r in self._open)

    @property
    def _open_input(self) -> Response | None:
        last = self._open[-1] if self._open else None
        return last if last is not None and not last.committed else None

    def append(self, pcm: bytes, response_id: str | None, now_s: float) -> list[ev.ServerEvent]:
        """Take pcm16 audio for the open utterance, starting one when there is none.

        Raises ProtocolError `input_buffer_overflow` (nothing of `pcm` is kept) or
        `response_not_found` when `response_id` is not that of the open utterance.
        """
        if self._closed or not pcm or self._was_cancelled(response_id):
            return []
        samples = len(pcm) // 2
        added_ms = samples * 1000 / self.rate
        if self.buffered_ms + added_ms > self.max_buffered_input_ms:
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_OVERFLOW,
                f"{self.buffered_ms:.0f} ms are buffered and {added_ms:.0f} ms came, the limit is "
                f"{self.max_buffered_input_ms} ms; the chunk was refused, send it again later",
                retry_after_s=round(added_ms / 1000, 3),
            )
        events: list[ev.ServerEvent] = []
        response = self._open_input
        if response is None:
            response = self._create(response_id)
            events.append(
                ev.ResponseCreated(response_id=response.id, response_index=response.index)
            )
        elif response_id is not None and response_id != response.id:
            raise ProtocolError(
                ErrorCode.RESPONSE_NOT_FOUND,
                f"response_id={response_id!r} is not the open utterance {response.id!r}; "
                "commit that one first",
                param="response_id",
            )
        response.pending.append(pcm)
        response.pending_samples += samples
        response.received_samples += samples
        if now_s - self._appended_s >= APPENDED_EVERY_S:
            self._appended_s = now_s
            received_ms = response.received_samples * 1000 / self.rate
            events.append(ev.AudioAppended(received_ms=received_ms, buffered_ms=self.buffered_ms))
        return events

    def _was_cancelled(self, response_id: str | None) -> bool:
        return response_id is not None and self._done_ids.get(response_id) == "cancelled"

    def _create(self, response_id: str | None) -> Response:
        if len(self._open) >= MAX_OPEN_RESPONSES:
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_OVERFLOW,
                f"{MAX_OPEN_RESPONSES} utterances are waiting; wait for a response.done",
            )
        if response_id in self._done_ids or any(response_id == r.id for r in self._open):
            raise ProtocolError(
                ErrorCode.RESPONSE_NOT_FOUND,
                f"response_id={response_id!r} is committed already; use a new id",
                param="response_id",
            )
        if response_id is not None and not 0 < len(response_id) <= ev.MAX_ID_LENGTH:
            raise ProtocolError(
                ErrorCode.INVALID_EVENT,
                f"response_id has {len(response_id)} characters, "
                f"1..{ev.MAX_ID_LENGTH} are accepted",
                param="response_id",
            )
        self._num_responses += 1
        name = response_id if response_id is not None else f"resp_{uuid.uuid4().hex[:16]}"
        response = Response(id=name, index=self._num_responses)
        self._open.append(response)
        return response

    def commit(self, response_id: str | None) -> list[ev.ServerEvent]:
        """End the open utterance. Raises ProtocolError `input_buffer_empty` when there is none."""
        response = self._open_input
        if response_id is not None and (response is None or response_id != response.id):
            if self._was_cancelled(response_id):
                return []
            raise ProtocolError(
                ErrorCode.RESPONSE_NOT_FOUND,
                f"response_id={response_id!r} is not the open utterance",
                param="response_id",
            )
        if response is None:
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_EMPTY,
                "there is no uncommitted audio; append audio before committing it",
            )
        response.committed = True
        duration_ms = response.received_samples * 1000 / self.rate
        return [ev.AudioCommitted(response_id=response.id, duration_ms=duration_ms)]

    def clear(self) -> list[ev.ServerEvent]:
        """Drop the open utterance's audio that the engine has not taken yet."""
        response = self._open_input
        dropped = 0
        events: list[ev.ServerEvent] = []
        if response is not None:
            dropped = response.pending_samples
            response.received_samples -= dropped
            response.pending.clear()
            response.pending_samples = 0
            if not response.fed_samples:
                self._open.remove(response)
                events.append(self._done(response, "cancelled", "input_cleared"))
        return [ev.AudioCleared(dropped_ms=dropped * 1000 / self.rate), *events]

    def cancel(self, response_id: str | None = None) -> list[ev.ServerEvent]:
        """Barge-in: end that response and all later ones, or everything without an id.

        A new epoch begins unless `response_id` names a response of which nothing was sent while
        an older one still plays. An id that is not open is ignored.
        """
        if self._closed:
            return []
        if response_id is None:
            return self._cancel_all("client_cancelled")
        position = next((i for i, r in enumerate(self._open) if r.id == response_id), None)
        if position is None:
            return []
        if position == 0 or self._open[position].sent:
            return self._cancel_all("client_cancelled")
        return self._cancel_unsent(position, "client_cancelled")

    def _cancel_all(self, reason: str) -> list[ev.ServerEvent]:
        cancelled = list(self._open)
        self._open.clear()
        self.ready.clear()
        self.epoch += 1
        self._discontinuity = True
        self._reset_engine()
        events: list[ev.ServerEvent] = [
            ev.OutputCleared(epoch=self.epoch, from_pts_us=self.next_pts_us)
        ]
        events.extend(self._done(r, "cancelled", reason) for r in cancelled)
        if self.state == "speaking":
            events.append(self._change_state(self._base_state))
        return events

    def _cancel_unsent(self, position: int, reason: str) -> list[ev.ServerEvent]:
        kept = list(self._open)[:position]
        cancelled = list(self._open)[position:]
        self._open = deque(kept)
        alive = {r.index for r in kept} | {0}
        self.ready = deque(f for f in self.ready if f.response in alive)
        # The engine need not hear of a response that it has not seen.
        if any(r.fed_samples or r.commit_fed for r in cancelled):
            self._reset_engine()
        return [self._done(r, "cancelled", reason) for r in cancelled]

    def _reset_engine(self) -> None:
        self.generation += 1
        self._reset = True
        self._engine_samples = 0

    def set_base_state(self, state: ev.AvatarState) -> list[ev.ServerEvent]:
        """What the avatar does while it does not speak."""
        self._base_state = state
        if self.state in ("speaking", state):
            return []
        return [self._change_state(state)]

    def _change_state(self, state: ev.AvatarState) -> ev.ServerEvent:
        self.state = state
        return ev.StateChanged(state=state, pts_us=self.next_pts_us)

    # Engine

    def take_input(self) -> EngineInput:
        """Hand the head response's audio to the engine; a pending reset goes with it."""
        head = self.head
        audio: tuple[bytes, ...] = ()
        commit = False
        if head is not None:
            audio = tuple(head.pending)
            self._engine_samples += head.pending_samples
            head.fed_samples += head.pending_samples
            head.pending.clear()
            head.pending_samples = 0
            commit = head.committed and not head.commit_fed
            head.commit_fed = head.committed
        reset, self._reset = self._reset, False
        return EngineInput(
            generation=self.generation,
            response=head.index if head is not None else 0,
            audio=audio,
            commit=commit,
            reset=reset,
        )

    @property
    def has_input(self) -> bool:
        """Whether `take_input` would hand over anything."""
        head = self.head
        if head is None:
            return self._reset
        return self._reset or bool(head.pending) or (head.committed and not head.commit_fed)

    def offer(self, frame: MediaFrame) -> bool:
        """Queue a generated frame; False when it belongs to something cancelled."""
        if frame.generation != self.generation or self._closed:
            return False
        if frame.response:
            response = self._find(frame.response)
            if response is None:
                return False
            response.generated += 1
        self.ready.append(frame)
        return True

    def report(
        self,
        *,
        generation: int,
        response: int,
        buffered_samples: int,
        finished: bool,
        now_s: float,
    ) -> list[ev.ServerEvent]:
        """The engine's word after a step: samples left in it, and whether the response is whole."""
        if generation != self.generation:
            return []
        self._engine_samples = buffered_samples
        found = self._find(response) if response else None
        if found is None or not finished:
            return []
        found.finished = True
        return self._complete(found, now_s, playback_end_s=now_s)

    def _find(self, index: int) -> Response | None:
        return next((r for r in self._open if r.index == index), None)

    # Output

    def stamp(self, now_s: float, *, playback_end_s: float) -> Stamped:
        """Take the next ready frame and give it its place. Raises IndexError when none is ready.

        playback_end_s: when the client will have shown all of what was sent, this frame included.
        """
        frame = self.ready.popleft()
        before: list[ev.ServerEvent] = []
        flags = Flag.KEYFRAME if frame.keyframe else Flag(0)
        if self._discontinuity:
            flags |= Flag.DISCONTINUITY
            self._discontinuity = False
        pts_us = self.next_pts_us
        response = self._find(frame.response) if frame.response else None
        if response is None:
            flags |= Flag.IDLE
            if self.state == "speaking":
                before.append(self._change_state(self._base_state))
        else:
            if response.first_pts_us is None:
                flags |= Flag.FIRST
                response.first_pts_us = pts_us
                before.append(
                    ev.ResponseStarted(
                        response_id=response.id, response_index=response.index, pts_us=pts_us
                    )
                )
            if self.state != "speaking":
                before.append(self._change_state("speaking"))
            if frame.last:
                flags |= Flag.LAST
            response.sent += 1
            response.end_pts_us = pts_us + FRAME_US
        header = Header(
            kind=Kind.MEDIA,
            flags=flags,
            seq=self._seq,
            pts_us=pts_us,
            epoch=self.epoch,
            response=frame.response,
            audio_len=len(frame.audio),
            video_len=len(frame.video),
        )
        self._seq = (self._seq + 1) & 0xFFFF_FFFF
        self.next_index += 1
        self.last_ordinal = frame.ordinal
        after = self._complete(response, now_s, playback_end_s) if response is not None else []
        return Stamped(before, header, frame, after)

    def playback(self, pts_us: int, now_s: float) -> list[ev.ServerEvent]:
        """The client shows the frame at `pts_us`; values outside what was sent are clamped."""
        pts_us = min(max(pts_us, 0), self.next_pts_us)
        self.played_pts_us = max(pts_us, self.played_pts_us or 0)
        return self.tick(now_s)

    def tick(self, now_s: float) -> list[ev.ServerEvent]:
        """Finish the responses whose playback ended, or whose client stopped telling."""
        events: list[ev.ServerEvent] = []
        for response in list(self._open):
            if response.done_by_s is None:
                break
            # The last frame counts as played once it is on screen.
            played = (self.played_pts_us or 0) >= response.end_pts_us - FRAME_US
            if not played and now_s < response.done_by_s:
                break
            self._open.remove(response)
            events.append(self._done(response, "completed", None))
        return events

    def _complete(
        self, response: Response, now_s: float, playback_end_s: float
    ) -> list[ev.ServerEvent]:
        if not response.finished or response.sent < response.generated:
            return []
        if response.done_by_s is None:
            waits = self.played_pts_us is not None
            response.done_by_s = playback_end_s + PLAYBACK_GRACE_S if waits else now_s
        return self.tick(now_s)

    def _done(
        self, response: Response, status: ev.ResponseStatus, reason: str | None
    ) -> ev.ServerEvent:
        self._done_ids[response.id] = status
        if len(self._done_ids) > REMEMBERED_IDS:
            self._done_ids.popitem(last=False)
        sent_ms = response.sent * FRAME_US / 1000
        played_ms: float | None = None
        if self.played_pts_us is not None:
            start = response.first_pts_us
            # What is on screen is being played for the length of its frame.
            end = self.played_pts_us + FRAME_US
            played_ms = 0.0 if start is None else min(max((end - start) / 1000, 0.0), sent_ms)
        return ev.ResponseDone(
            response_id=response.id,
            response_index=response.index,
            status=status,
            generated_ms=response.generated * FRAME_US / 1000,
            sent_ms=sent_ms,
            played_ms=played_ms,
            reason=reason,
        )

    def close(self, status: ev.ResponseStatus, reason: str) -> list[ev.ServerEvent]:
        """End the session: what is open is done now, and nothing is accepted any more."""
        self._closed = True
        self.generation += 1
        self.ready.clear()
        gone = list(self._open)
        self._open.clear()
        return [self._done(r, status, reason) for r in gone]


def stamp_source(items: Iterable[ev.ServerEvent], event_id: str | None) -> None:
    """Mark events as replies to the client event `event_id`, if it has one."""
    if event_id is not None:
        for item in items:
            item.source_event_id = event_id
