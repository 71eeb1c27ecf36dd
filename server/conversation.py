"""The state machine of one session: utterances, barge-in, the engine's input. No I/O, no clock.

Callers bring the time as `now_s` (monotonic seconds) and receive the events to be sent, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from visavis.server import events as ev
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.playout import Playout
from visavis.server.protocol import FPS, FRAME_US
from visavis.server.responses import Response, Responses, ResponsesState
from visavis.server.timeline import EngineInput, MediaFrame, Stamped, Timeline, TimelineState

__all__ = ["FPS", "FRAME_US", "Conversation", "EngineInput", "MediaFrame", "Stamped"]

APPENDED_EVERY_S = 0.5
MAX_FADE_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationState:
    """All that a conversation carries from one moment to the next, for another process."""

    rate: int
    generation: int
    timeline: TimelineState
    ready: tuple[MediaFrame, ...]
    state: ev.AvatarState
    base_state: ev.AvatarState
    played_pts_us: int | None
    responses: ResponsesState
    engine_samples: int
    reset: bool
    shown_ordinal: int


class Conversation(Playout):
    """One session's protocol state: what the client says, and what the engine is to do about it.

    rate: the caller's audio in Hz. max_buffered_input_ms: the most audio accepted ahead.
    """

    def __init__(self, *, rate: int, max_buffered_input_ms: int) -> None:
        super().__init__()
        self.rate = rate
        self.max_buffered_input_ms = max_buffered_input_ms
        self.generation = 0
        self._engine_samples = 0
        self._reset = False
        self._shown_ordinal = -1
        self._keyframe_wanted = False
        self._appended_s = float("-inf")
        self._heard_s = float("-inf")
        self._closed = False

    def save(self) -> ConversationState:
        """A copy, to go on with it elsewhere."""
        return ConversationState(
            rate=self.rate,
            generation=self.generation,
            timeline=self.timeline.save(),
            ready=tuple(frame.settled() for frame in self.ready),
            state=self.state,
            base_state=self._base_state,
            played_pts_us=self.played_pts_us,
            responses=self._responses.save(),
            engine_samples=self._engine_samples,
            reset=self._reset,
            shown_ordinal=self._shown_ordinal,
        )

    @classmethod
    def load(cls, state: ConversationState, *, max_buffered_input_ms: int) -> Self:
        """Go on from a copy. Its first new frame can be decoded alone."""
        conversation = cls(rate=state.rate, max_buffered_input_ms=max_buffered_input_ms)
        conversation.generation = state.generation
        conversation.timeline = Timeline.load(state.timeline)
        conversation.ready = deque(state.ready)
        conversation.state = state.state
        conversation.played_pts_us = state.played_pts_us
        conversation._base_state = state.base_state
        conversation._responses = Responses.load(state.responses)
        conversation._engine_samples = state.engine_samples
        conversation._reset = state.reset
        conversation._shown_ordinal = state.shown_ordinal
        conversation._keyframe_wanted = True
        return conversation

    @property
    def closed(self) -> bool:
        """Whether the session is over: nothing is accepted any more, neither audio nor frames."""
        return self._closed

    @property
    def buffered_ms(self) -> float:
        """Audio received and not consumed by the engine, in milliseconds."""
        return (self._engine_samples + self._responses.pending_samples) * 1000 / self.rate

    # Input

    def append(self, pcm: bytes, response_id: str | None, now_s: float) -> list[ev.ServerEvent]:
        """Take pcm16 audio for the open utterance, starting one when there is none.

        Raises ProtocolError `input_buffer_overflow` (nothing of `pcm` is kept) or
        `response_not_found` when `response_id` is not that of the open utterance.
        """
        if self._closed or not pcm or self._responses.was_cancelled(response_id):
            return []
        self.check_room(pcm)
        samples = len(pcm) // 2
        events: list[ev.ServerEvent] = []
        response = self._responses.open_input
        if response is None:
            response = self._responses.create(response_id)
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
        self._heard_s = now_s
        response.pending.append(pcm)
        response.pending_samples += samples
        response.received_samples += samples
        if now_s - self._appended_s >= APPENDED_EVERY_S:
            self._appended_s = now_s
            received_ms = response.received_samples * 1000 / self.rate
            events.append(ev.AudioAppended(received_ms=received_ms, buffered_ms=self.buffered_ms))
        return events

    def awaits_audio(self, now_s: float, *, within_s: float) -> bool:
        """Whether an utterance is open whose last audio came less than `within_s` seconds ago."""
        return self._responses.open_input is not None and now_s - self._heard_s < within_s

    def check_room(self, pcm: bytes) -> None:
        """Whether there is room for `pcm`. Raises ProtocolError `input_buffer_overflow`."""
        added_ms = len(pcm) // 2 * 1000 / self.rate
        if self.buffered_ms + added_ms > self.max_buffered_input_ms:
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_OVERFLOW,
                f"{self.buffered_ms:.0f} ms are buffered and {added_ms:.0f} ms came, the limit is "
                f"{self.max_buffered_input_ms} ms; the chunk was refused, send it again later",
                retry_after_s=round(added_ms / 1000, 3),
            )

    def commit(self, response_id: str | None) -> list[ev.ServerEvent]:
        """End the open utterance. Raises ProtocolError `input_buffer_empty` when there is none."""
        response = self._responses.open_input
        if response_id is not None and (response is None or response_id != response.id):
            if self._responses.was_cancelled(response_id):
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
        response = self._responses.open_input
        dropped = 0
        events: list[ev.ServerEvent] = []
        if response is not None:
            dropped = response.drop_pending()
            if not response.fed_samples:
                events.append(self._done(response, "cancelled", "input_cleared"))
        return [ev.AudioCleared(dropped_ms=dropped * 1000 / self.rate), *events]

    def cancel(
        self,
        response_id: str | None = None,
        *,
        fade_ms: int = 0,
        shown_pts_us: int | None = None,
    ) -> list[ev.ServerEvent]:
        """Barge-in: end that response and all later ones, or everything without an id.

        A new epoch begins unless `response_id` names a response of which nothing was sent while
        an older one still plays. An id that is not open is ignored. shown_pts_us: the last frame
        that the viewer has seen when the fade is over, so that the engine goes on from it; None
        for the last one that was sent and is not void.
        """
        if self._closed:
            return []
        if response_id is None:
            return self._cancel_all(fade_ms, shown_pts_us)
        cancelled = self._responses.from_id(response_id)
        if not cancelled:
            return []
        if len(cancelled) == len(self._responses) or cancelled[0].sent:
            return self._cancel_all(fade_ms, shown_pts_us)
        return self._cancel_unsent(cancelled)

    def _cancel_all(self, fade_ms: int, shown_pts_us: int | None) -> list[ev.ServerEvent]:
        self.ready.clear()
        place, ordinal = self.timeline.begin_epoch(shown_pts_us)
        self._reset_engine(ordinal)
        shown_us = place * FRAME_US
        if shown_pts_us is not None and shown_pts_us // FRAME_US == place:
            shown_us = shown_pts_us
        events: list[ev.ServerEvent] = [
            ev.OutputCleared(
                epoch=self.epoch,
                from_pts_us=self.next_pts_us,
                fade_ms=min(max(fade_ms, 0), MAX_FADE_MS),
                shown_pts_us=shown_us if place >= 0 else None,
            )
        ]
        events.extend(self._done(r, "cancelled", "client_cancelled") for r in self._responses)
        if self.state == "speaking":
            events.append(self._change_state(self._base_state))
        return events

    def _cancel_unsent(self, cancelled: tuple[Response, ...]) -> list[ev.ServerEvent]:
        gone = {r.index for r in cancelled}
        self.ready = deque(f for f in self.ready if f.response not in gone)
        # The engine need not hear of a response that it has not seen.
        if any(r.fed_samples or r.commit_fed for r in cancelled):
            # What is kept will be seen: the face goes on from its last frame.
            self._reset_engine(self.ready[-1].ordinal if self.ready else self.last_ordinal)
        return [self._done(r, "cancelled", "client_cancelled") for r in cancelled]

    def _reset_engine(self, shown_ordinal: int) -> None:
        self.generation += 1
        self._shown_ordinal = shown_ordinal
        self._reset = True
        self._engine_samples = 0

    def set_base_state(self, state: ev.AvatarState) -> list[ev.ServerEvent]:
        """What the avatar does while it does not speak."""
        self._base_state = state
        if self.state in ("speaking", state):
            return []
        return [self._change_state(state)]

    def request_keyframe(self) -> None:
        """The next frame that the engine side makes can be decoded alone."""
        self._keyframe_wanted = True

    # Engine

    def take_input(self) -> EngineInput:
        """Hand the head response's audio to the engine; a pending reset goes with it."""
        head = self.head
        audio: tuple[bytes, ...] = ()
        commit = False
        if head is not None:
            self._engine_samples += head.pending_samples
            audio = head.take_pending()
            commit = head.committed and not head.commit_fed
            head.commit_fed = head.committed
        reset, self._reset = self._reset, False
        keyframe, self._keyframe_wanted = self._keyframe_wanted, False
        return EngineInput(
            generation=self.generation,
            response=head.index if head is not None else 0,
            audio=audio,
            commit=commit,
            reset=reset,
            shown_ordinal=self._shown_ordinal if reset else -1,
            keyframe=keyframe,
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
            response = self._responses.find(frame.response)
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
        found = self._responses.find(response) if response else None
        if found is None or not finished:
            return []
        found.finished = True
        return self._complete(found, now_s, playback_end_s=now_s)

    def close(self, status: ev.ResponseStatus, reason: str) -> list[ev.ServerEvent]:
        """End the session: what is open is done now, and nothing is accepted any more."""
        self._closed = True
        self.generation += 1
        self.ready.clear()
        return [self._done(r, status, reason) for r in self._responses]


def stamp_source(items: Iterable[ev.ServerEvent], event_id: str | None) -> None:
    """Mark events as replies to the client event `event_id`, if it has one."""
    if event_id is not None:
        for item in items:
            item.source_event_id = event_id
