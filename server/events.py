"""Every JSON event of the wire protocol, as msgspec structs: one definition, no I/O.

Client events are decoded with :func:`decode_client_event`; fields and types that this version
does not know are ignored, so that a newer client can talk to an older server.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from visavis.server.errors import ErrorCode, ProtocolError

IdlePolicy = Literal["generate", "loop", "freeze"]
VideoFormat = Literal["h264", "jpeg", "none"]
AvatarState = Literal["idle", "listening", "speaking"]
ResponseStatus = Literal["completed", "cancelled", "failed"]
# The longest text taken for a name chosen by the client (response and event ids).
MAX_ID_LENGTH = 64


class InputAudio(Struct, kw_only=True):
    """Format of the caller's audio: signed 16-bit little-endian mono at `rate` Hz."""

    format: str = "pcm16"
    rate: int = 16000


class OutputMedia(Struct, kw_only=True):
    """What the client wants back; `quality` is 1..100 and steers JPEG only."""

    video: str = "h264"
    audio: str = "pcm16"
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    quality: int = 85


class SessionSettings(Struct, kw_only=True):
    """The body of session.update. UNSET fields keep their value."""

    avatar_id: str | None = None
    image: str | None = None
    prompt: str | None = None
    seed: int = 0
    input_audio: InputAudio | UnsetType = UNSET
    output: OutputMedia | UnsetType = UNSET
    idle: IdlePolicy | UnsetType = UNSET
    on_disconnect: Literal["hold", "end"] | UnsetType = UNSET


class ClientEvent(Struct, kw_only=True, tag_field="type"):
    """Fields common to all client events."""

    event_id: str | None = None


class SessionUpdate(ClientEvent, tag="session.update", kw_only=True):
    """First event of a session; later only `idle` and `on_disconnect` may change."""

    session: SessionSettings


class AudioAppend(ClientEvent, tag="input_audio_buffer.append", kw_only=True):
    """Base64 twin of the binary AUDIO_IN message."""

    audio: str
    response_id: str | None = None


class AudioCommit(ClientEvent, tag="input_audio_buffer.commit", kw_only=True):
    """End of the utterance."""

    response_id: str | None = None


class AudioClear(ClientEvent, tag="input_audio_buffer.clear", kw_only=True):
    """Drop the audio of the open utterance that was not consumed yet."""


class ResponseCancel(ClientEvent, tag="response.cancel", kw_only=True):
    """Barge-in. Without an id everything is cancelled. Never an error."""

    response_id: str | None = None
    fade_ms: int | None = None


class SetState(ClientEvent, tag="avatar.set_state", kw_only=True):
    """What the avatar does while it does not speak."""

    state: Literal["idle", "listening"]


class PlaybackUpdate(ClientEvent, tag="playback.update", kw_only=True):
    """Where the client's playback stands; the credit of the flow control."""

    pts_us: int
    seq: int = 0
    buffered_ms: float = 0.0
    underruns: int = 0
    skew_ms: float | None = None


class SessionPing(ClientEvent, tag="session.ping", kw_only=True):
    """Round trip and clock offset, answered with `session.pong`."""

    t: float | int | str | None = None


class SessionClose(ClientEvent, tag="session.close", kw_only=True):
    """Leave; with `drain` what was committed is spoken to its end first."""

    drain: bool = False


class ServerEvent(Struct, kw_only=True, tag_field="type"):
    """Fields common to all server events; `event_id` is stamped when it is sent."""

    event_id: str = ""
    source_event_id: str | UnsetType = UNSET


class Limits(Struct, kw_only=True):
    """What the server enforces, told before it is."""

    max_message_bytes: int
    max_buffered_input_ms: int
    max_session_s: float
    idle_timeout_s: float
    max_inflight_ms: int


class Timing(Struct, kw_only=True):
    """The engine's granularity; `first_frame_ms_p50` is null until it was measured."""

    fps: float
    chunk_frames: int
    chunk_ms: float
    first_frame_ms_p50: float | None = None


class SessionCreated(ServerEvent, tag="session.created", kw_only=True):
    session_id: str
    protocol: int = 1
    server_version: str
    engine: str
    model: str
    limits: Limits
    timing: Timing
    resume: dict[str, Any] | None = None


class EffectiveSettings(Struct, kw_only=True):
    """What is in force, which may differ from what was asked for (frame size, frame rate)."""

    avatar_id: str | None
    input_audio: InputAudio
    output: dict[str, Any]
    idle: IdlePolicy
    on_disconnect: Literal["hold", "end"]
    seed: int
    warnings: list[str]


class SessionUpdated(ServerEvent, tag="session.updated", kw_only=True):
    session: EffectiveSettings


class SessionLoading(ServerEvent, tag="session.loading", kw_only=True):
    stage: str
    progress: float


class AudioAppended(ServerEvent, tag="input_audio_buffer.appended", kw_only=True):
    received_ms: float
    buffered_ms: float


class AudioCommitted(ServerEvent, tag="input_audio_buffer.committed", kw_only=True):
    response_id: str
    duration_ms: float


class AudioCleared(ServerEvent, tag="input_audio_buffer.cleared", kw_only=True):
    dropped_ms: float


class ResponseCreated(ServerEvent, tag="response.created", kw_only=True):
    response_id: str
    response_index: int


class ResponseStarted(ServerEvent, tag="response.started", kw_only=True):
    response_id: str
    response_index: int
    pts_us: int


class ResponseDone(ServerEvent, tag="response.done", kw_only=True):
    """Exactly one for every response.created. `played_ms` is null without playback.update."""

    response_id: str
    response_index: int
    status: ResponseStatus
    generated_ms: float
    sent_ms: float
    played_ms: float | None
    reason: str | None = None


class StateChanged(ServerEvent, tag="avatar.state_changed", kw_only=True):
    state: AvatarState
    pts_us: int


class OutputCleared(ServerEvent, tag="output.cleared", kw_only=True):
    epoch: int
    from_pts_us: int


class OutputDropped(ServerEvent, tag="output.dropped", kw_only=True):
    frames: int
    reason: Literal["slow_client", "late"]


class SessionStats(ServerEvent, tag="session.stats", kw_only=True):
    rtf: float | None
    gen_fps: float
    queue_ms: float
    encode_ms: float
    dropped: int


class SessionExpiring(ServerEvent, tag="session.expiring", kw_only=True):
    reason: Literal["server_draining", "max_duration", "idle"]
    deadline_s: float
    resumable: bool = False


class SessionPong(ServerEvent, tag="session.pong", kw_only=True):
    """`t` comes back as it was sent; `server_time_us` is the server's monotonic clock."""

    t: float | int | str | None
    server_time_us: int


class ErrorBody(Struct, kw_only=True):
    type: str
    code: str
    message: str
    param: str | None = None
    event_id: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None


class ErrorEvent(ServerEvent, tag="error", kw_only=True):
    error: ErrorBody


CLIENT_EVENTS: tuple[type[ClientEvent], ...] = (
    SessionUpdate,
    AudioAppend,
    AudioCommit,
    AudioClear,
    ResponseCancel,
    SetState,
    PlaybackUpdate,
    SessionPing,
    SessionClose,
)
SERVER_EVENTS: tuple[type[ServerEvent], ...] = (
    SessionCreated,
    SessionUpdated,
    SessionLoading,
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


class _Envelope(Struct):
    type: str
    event_id: str | None = None


def event_type(kind: type[Struct]) -> str:
    """The wire name of an event class, such as `session.update`."""
    return str(kind.__struct_config__.tag)


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DECODERS = {event_type(kind): msgspec.json.Decoder(kind) for kind in CLIENT_EVENTS}


def decode_client_event(text: str | bytes) -> ClientEvent | None:
    """Decode one text message; None when its type is not known here.

    Raises ProtocolError `invalid_json` for text that is no JSON object with a string `type`,
    and `invalid_event` (naming the field) for a known event with a wrong field.
    """
    try:
        envelope = _ENVELOPE.decode(text)
    except msgspec.ValidationError as error:
        raise ProtocolError(
            ErrorCode.INVALID_JSON, f'a message is a JSON object with a string "type": {error}'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_JSON, f"the text message is not valid JSON: {error}"
        ) from error
    decoder = _DECODERS.get(envelope.type)
    if decoder is None:
        return None
    try:
        event: ClientEvent = decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        message = str(error)
        param = message.rsplit("`$.", 1)[1].rstrip("`") if "`$." in message else None
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            f"{envelope.type}: {message}",
            param=param,
            event_id=envelope.event_id,
        ) from error
    return event


def encode_event(event: ServerEvent) -> str:
    """One server event as JSON text."""
    return msgspec.json.encode(event).decode()
