"""The server's JSON events as frozen dataclasses. Unknown types and fields are no error."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from visavis_client.errors import ServerError, WireError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of the server. `raw` is the whole message; types unknown here are plain Events.

    Units are in the fields' names; docs/protocol.md says what each means.
    """

    TYPE: ClassVar[str] = ""

    type: str
    event_id: str = ""
    source_event_id: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, message: Json) -> Self:
        """Take the known fields. Raises WireError when one without a default is missing."""
        known = {f.name for f in fields(cls)} - {"raw"}
        try:
            return cls(**{k: v for k, v in message.items() if k in known}, raw=message)
        except TypeError as error:
            raise WireError(
                f"event {message['type']!r} lacks a field: {error}",
                remedy="check that server and client have the same protocol version",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCreated(Event):
    """The server's greeting; `limits` and `timing` as in docs/protocol.md."""

    TYPE: ClassVar[str] = "session.created"

    session_id: str
    protocol: int
    server_version: str
    engine: str
    model: str
    limits: Json
    timing: Json
    resume: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLoading(Event):
    """The avatar is being prepared; `progress` goes from 0 to 1."""

    TYPE: ClassVar[str] = "session.loading"

    stage: str
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated(Event):
    """`session` holds the settings in force."""

    TYPE: ClassVar[str] = "session.updated"

    session: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioAppended(Event):
    """Audio has arrived."""

    TYPE: ClassVar[str] = "input_audio_buffer.appended"

    received_ms: float
    buffered_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioCommitted(Event):
    """An utterance has got its end."""

    TYPE: ClassVar[str] = "input_audio_buffer.committed"

    response_id: str
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioCleared(Event):
    """Audio was dropped at this client's wish."""

    TYPE: ClassVar[str] = "input_audio_buffer.cleared"

    dropped_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCreated(Event):
    """An utterance has begun with its first audio."""

    TYPE: ClassVar[str] = "response.created"

    response_id: str
    response_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted(Event):
    """The first frame of an utterance comes next."""

    TYPE: ClassVar[str] = "response.started"

    response_id: str
    response_index: int
    pts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDone(Event):
    """Exactly one for each utterance; `status` is completed, cancelled or failed."""

    TYPE: ClassVar[str] = "response.done"

    response_id: str
    response_index: int
    status: str
    generated_ms: float
    sent_ms: float
    played_ms: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """The avatar is idle, listening or speaking from `pts_us` on."""

    TYPE: ClassVar[str] = "avatar.state_changed"

    state: str
    pts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCleared(Event):
    """A cancel took effect: frames of lower epochs are void."""

    TYPE: ClassVar[str] = "output.cleared"

    epoch: int
    from_pts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDropped(Event):
    """The server left frames out."""

    TYPE: ClassVar[str] = "output.dropped"

    frames: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats(Event):
    """How the engine keeps up; `rtf` is its time over the time its frames play."""

    TYPE: ClassVar[str] = "session.stats"

    gen_fps: float
    queue_ms: float
    encode_ms: float
    dropped: int
    rtf: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiring(Event):
    """The session ends in `deadline_s` seconds."""

    TYPE: ClassVar[str] = "session.expiring"

    reason: str
    deadline_s: float
    resumable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPong(Event):
    """The answer to a ping."""

    TYPE: ClassVar[str] = "session.pong"

    server_time_us: int
    t: float | int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent(Event):
    """An error; `exception()` makes it one."""

    TYPE: ClassVar[str] = "error"

    error: Json

    def exception(self, status: int | None = None) -> ServerError:
        """The exception that says the same; `status` is the HTTP status it came with."""
        return server_error(self.error, status)


_KNOWN: dict[str, type[Event]] = {
    kind.TYPE: kind
    for kind in (
        SessionCreated,
        SessionLoading,
        SessionUpdated,
        AudioAppended,
        AudioCommitted,
        AudioCleared,
        ResponseCreated,
        ResponseStarted,
        ResponseDone,
        StateChanged,
        OutputCleared,
        OutputDropped,
        SessionStats,
        SessionExpiring,
        SessionPong,
        ErrorEvent,
    )
}


def parse_event(text: str | bytes) -> Event:
    """One text message. Raises WireError when it is no JSON object with a string `type`."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"damaged text message: {error}", remedy="") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise WireError('a text message is a JSON object with a string "type"', remedy="")
    return _KNOWN.get(message["type"], Event).from_json(message)


def server_error(body: Json, status: int | None = None) -> ServerError:
    """The exception for an `error` object, from the socket or from HTTP."""
    return ServerError(
        str(body.get("code", "unknown")),
        str(body.get("message", "the server gave no message")),
        type=str(body.get("type", "")),
        param=body.get("param"),
        event_id=body.get("event_id"),
        retryable=bool(body.get("retryable", False)),
        retry_after_s=body.get("retry_after_s"),
        status=status,
    )
