"""The utterances of one session, and the law that each is done exactly once. No I/O, no clock."""

from __future__ import annotations

import uuid
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from visavis.server import events as ev
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import FRAME_US

MAX_OPEN_RESPONSES = 32
# Ids of finished responses are remembered: audio still under way to a cancelled one is dropped.
REMEMBERED_IDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseState:
    """A copy of a response; `pending` is the pcm16 that the engine has not seen."""

    id: str
    index: int
    pending: bytes
    received_samples: int
    fed_samples: int
    committed: bool
    commit_fed: bool
    generated: int
    sent: int
    finished: bool
    first_pts_us: int | None
    end_pts_us: int
    all_sent: bool


@dataclass(frozen=True, slots=True)
class ResponsesState:
    """Copies of the open responses, the ids of those that are done, and how many there were."""

    open: tuple[ResponseState, ...]
    done: tuple[tuple[str, ev.ResponseStatus], ...]
    count: int


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

    def save(self) -> ResponseState:
        """A copy, to go on with it elsewhere."""
        return ResponseState(
            id=self.id,
            index=self.index,
            pending=b"".join(self.pending),
            received_samples=self.received_samples,
            fed_samples=self.fed_samples,
            committed=self.committed,
            commit_fed=self.commit_fed,
            generated=self.generated,
            sent=self.sent,
            finished=self.finished,
            first_pts_us=self.first_pts_us,
            end_pts_us=self.end_pts_us,
            all_sent=self.done_by_s is not None,
        )

    @classmethod
    def load(cls, state: ResponseState) -> Self:
        """Go on from a copy; `Playout.reschedule` says when its playback ends on this clock."""
        return cls(
            id=state.id,
            index=state.index,
            pending=deque([state.pending] if state.pending else []),
            pending_samples=len(state.pending) // 2,
            received_samples=state.received_samples,
            fed_samples=state.fed_samples,
            committed=state.committed,
            commit_fed=state.commit_fed,
            generated=state.generated,
            sent=state.sent,
            finished=state.finished,
            first_pts_us=state.first_pts_us,
            end_pts_us=state.end_pts_us,
            done_by_s=float("inf") if state.all_sent else None,
        )

    def take_pending(self) -> tuple[bytes, ...]:
        """Hand over the audio that the engine has not seen."""
        audio = tuple(self.pending)
        self.fed_samples += self.pending_samples
        self.pending.clear()
        self.pending_samples = 0
        return audio

    def drop_pending(self) -> int:
        """Forget that audio; returns its samples."""
        dropped = self.pending_samples
        self.received_samples -= dropped
        self.pending.clear()
        self.pending_samples = 0
        return dropped


class Responses:
    """The open responses, oldest first; only `done` takes one out, and so ends it."""

    def __init__(self) -> None:
        self._open: deque[Response] = deque()
        self._done_ids: OrderedDict[str, ev.ResponseStatus] = OrderedDict()
        self._count = 0

    def save(self) -> ResponsesState:
        """A copy, to go on with it elsewhere."""
        opened = tuple(response.save() for response in self._open)
        return ResponsesState(opened, tuple(self._done_ids.items()), self._count)

    @classmethod
    def load(cls, state: ResponsesState) -> Self:
        """Go on from a copy."""
        responses = cls()
        responses._open.extend(Response.load(response) for response in state.open)
        responses._done_ids.update(state.done)
        responses._count = state.count
        return responses

    def __iter__(self) -> Iterator[Response]:
        return iter(tuple(self._open))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def open_input(self) -> Response | None:
        """The one that still takes audio."""
        last = self._open[-1] if self._open else None
        return last if last is not None and not last.committed else None

    @property
    def head(self) -> Response | None:
        """The one that the engine works on."""
        return next((r for r in self._open if not r.finished), None)

    @property
    def pending_samples(self) -> int:
        """Audio that the engine has not seen."""
        return sum(r.pending_samples for r in self._open)

    def find(self, index: int) -> Response | None:
        """An open response by its index."""
        return next((r for r in self._open if r.index == index), None)

    def from_id(self, response_id: str) -> tuple[Response, ...]:
        """The open response of that id and all later ones."""
        found = tuple(self._open)
        for position, response in enumerate(found):
            if response.id == response_id:
                return found[position:]
        return ()

    def was_cancelled(self, response_id: str | None) -> bool:
        """Whether audio for this id is only late."""
        return response_id is not None and self._done_ids.get(response_id) == "cancelled"

    def create(self, response_id: str | None) -> Response:
        """Open a response. Raises ProtocolError when there are too many, or for a used id."""
        if len(self._open) >= MAX_OPEN_RESPONSES:
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_OVERFLOW,
                f"{MAX_OPEN_RESPONSES} utterances are waiting; wait for a response.done",
                retry_after_s=1.0,
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
        self._count += 1
        name = response_id if response_id is not None else f"resp_{uuid.uuid4().hex[:16]}"
        response = Response(id=name, index=self._count)
        self._open.append(response)
        return response

    def done(
        self,
        response: Response,
        status: ev.ResponseStatus,
        reason: str | None,
        *,
        played_pts_us: int | None,
    ) -> ev.ResponseDone:
        """End an open response. Raises ValueError for one that is not open (any more)."""
        self._open.remove(response)
        self._done_ids[response.id] = status
        if len(self._done_ids) > REMEMBERED_IDS:
            self._done_ids.popitem(last=False)
        sent_ms = response.sent * FRAME_US / 1000
        played_ms: float | None = None
        if played_pts_us is not None:
            start = response.first_pts_us
            # What is on screen is being played for the length of its frame.
            end = played_pts_us + FRAME_US
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
