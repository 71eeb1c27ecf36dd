"""Types of the wire protocol. Made by scripts/generate_protocol.py; do not edit.

Server events are read with `server_event`, which ignores fields and types that it does not know.
Client events are written with `to_json`, which leaves out what is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag, StrEnum
from typing import Any, ClassVar, Literal, Self

Json = dict[str, Any]
SUBPROTOCOL = "avatar.v1"
TOKEN_SUBPROTOCOL_PREFIX = "avatar.auth."
ENDPOINT = "/v1/realtime/avatar"
PROTOCOL_VERSION = 1
FRAME_US = 40_000
# For the module struct: kind, flags, header_len, seq, pts_us, epoch, response, audio_len, video_len
HEADER_FORMAT = "<BBHIQIIII"
HEADER_BYTES = 32


class Kind(IntEnum):
    """What a binary message carries; receivers skip kinds that they do not know."""

    # client to server: pcm16 of the open utterance
    AUDIO_IN = 1
    # server to client: one frame and its sound
    MEDIA = 2
    # server to client: the initialisation segment of fmp4, before its media
    CODEC_CONFIG = 3
    # server to client: one frame as a fragment of fmp4, and its sound
    FMP4 = 4


class Flag(IntFlag):
    """Bits of a media message."""

    # the picture can be decoded alone
    KEYFRAME = 1
    # first frame of its response
    FIRST = 2
    # last frame of its response
    LAST = 4
    # nobody speaks; the sound is silence
    IDLE = 8
    # first frame of an epoch, or after a resume: do not predict from before
    DISCONTINUITY = 16


class ErrorType(StrEnum):
    """Whose fault, and what kind."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    RATE_LIMIT = "rate_limit_error"
    CAPACITY = "capacity_error"
    ENGINE = "engine_error"
    SERVER = "server_error"


class ErrorCode(StrEnum):
    """What exactly went wrong."""

    # No JSON object with a string `type`
    INVALID_JSON = "invalid_json"
    # A known event with a wrong field, named by `param`
    INVALID_EVENT = "invalid_event"
    # A binary message whose lengths do not add up
    INVALID_FRAME = "invalid_frame"
    # An event that came as a binary message; events are text
    UNSUPPORTED_DATA = "unsupported_data"
    # Bad base64, or half a sample
    INVALID_AUDIO = "invalid_audio"
    # Outside 8,000..48,000 Hz
    INVALID_SAMPLE_RATE = "invalid_sample_rate"
    # No picture, no face, or too large; the message says what would help
    INVALID_IMAGE = "invalid_image"
    # Characters that no id has
    INVALID_AVATAR_ID = "invalid_avatar_id"
    # A format, size or rate that this server does not have
    UNSUPPORTED_VALUE = "unsupported_value"
    # A later `session.update` that would change more than it may
    IMMUTABLE_FIELD = "immutable_field"
    # Something came before `session.update`
    SESSION_NOT_CONFIGURED = "session_not_configured"
    # No `session.update` or `session.resume` in time
    SESSION_UPDATE_TIMEOUT = "session_update_timeout"
    # Subprotocols were offered, and `avatar.v1` is none of them
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    # Above `max_message_bytes`; at twice that the socket is closed without an event
    MESSAGE_TOO_LARGE = "message_too_large"
    # Twenty wrong messages
    TOO_MANY_ERRORS = "too_many_errors"
    # Commit without audio
    INPUT_BUFFER_EMPTY = "input_buffer_empty"
    # More audio than `max_buffered_input_ms`
    INPUT_BUFFER_OVERFLOW = "input_buffer_overflow"
    # Audio faster than `max_input_rate`
    INPUT_RATE_EXCEEDED = "input_rate_exceeded"
    # The id is not that of the open utterance, or was used
    RESPONSE_NOT_FOUND = "response_not_found"
    # There is no such avatar
    AVATAR_NOT_FOUND = "avatar_not_found"
    # A built-in avatar cannot be deleted (HTTP only)
    AVATAR_READ_ONLY = "avatar_read_only"
    # A portrait without the consent flag
    CONSENT_REQUIRED = "consent_required"
    # This server wants a key or token
    MISSING_TOKEN = "missing_token"
    # The key or token is not one of this server
    INVALID_TOKEN = "invalid_token"
    # The token is too old; get a new one
    TOKEN_EXPIRED = "token_expired"
    # The page's origin may not connect, or the server was called by a name that is not its own
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    # The key or token does not allow this
    NOT_PERMITTED = "not_permitted"
    # Too many requests of one key (HTTP only)
    RATE_LIMITED = "rate_limited"
    # The key's quota is used up
    QUOTA_EXCEEDED = "quota_exceeded"
    # All places are taken, and the queue is full or was too long; or too much came at once
    CAPACITY = "capacity"
    # The model is not there yet
    MODEL_LOADING = "model_loading"
    # This session failed; others live on
    ENGINE_FAILED = "engine_failed"
    # Processes of the engine are started anew; connect again, and resume if that was said
    ENGINE_RESTARTING = "engine_restarting"
    # A fault of the server
    INTERNAL_ERROR = "internal_error"
    # The server stops; connect again
    SERVER_DRAINING = "server_draining"
    # The place is for others; announced by `session.expiring`
    IDLE_TIMEOUT = "idle_timeout"
    # Announced by `session.expiring`
    MAX_DURATION = "max_duration"
    # No credit, or no reading, for `limits.slow_client_s`, or 1,024 events unread
    SLOW_CLIENT = "slow_client"
    # The handle was not made by this service
    INVALID_RESUME_HANDLE = "invalid_resume_handle"
    # The session is gone; open a new one
    RESUME_EXPIRED = "resume_expired"
    # The session lives on another replica; connect again, the router will find it
    RESUME_ELSEWHERE = "resume_elsewhere"
    # The session goes on on a newer connection
    TAKEN_OVER = "taken_over"
    # An administrator ended the session
    SESSION_ENDED = "session_ended"


# The close code that follows an error, for those that end the session.
CLOSE_OF_ERROR: dict[ErrorCode, int] = {
    ErrorCode.UNSUPPORTED_DATA: 1003,
    ErrorCode.SESSION_UPDATE_TIMEOUT: 4400,
    ErrorCode.UNSUPPORTED_PROTOCOL: 4400,
    ErrorCode.MESSAGE_TOO_LARGE: 1009,
    ErrorCode.TOO_MANY_ERRORS: 1007,
    ErrorCode.AVATAR_NOT_FOUND: 4404,
    ErrorCode.MISSING_TOKEN: 4401,
    ErrorCode.INVALID_TOKEN: 4401,
    ErrorCode.TOKEN_EXPIRED: 4401,
    ErrorCode.ORIGIN_NOT_ALLOWED: 4403,
    ErrorCode.NOT_PERMITTED: 4403,
    ErrorCode.QUOTA_EXCEEDED: 4429,
    ErrorCode.CAPACITY: 4429,
    ErrorCode.MODEL_LOADING: 4503,
    ErrorCode.ENGINE_FAILED: 1011,
    ErrorCode.ENGINE_RESTARTING: 1012,
    ErrorCode.INTERNAL_ERROR: 1011,
    ErrorCode.SERVER_DRAINING: 1012,
    ErrorCode.IDLE_TIMEOUT: 4408,
    ErrorCode.MAX_DURATION: 4410,
    ErrorCode.SLOW_CLIENT: 4408,
    ErrorCode.INVALID_RESUME_HANDLE: 4403,
    ErrorCode.RESUME_EXPIRED: 4404,
    ErrorCode.RESUME_ELSEWHERE: 1012,
    ErrorCode.TAKEN_OVER: 4409,
    ErrorCode.SESSION_ENDED: 4403,
}
# Why a socket was closed, and what a client does about it.
CLOSE_CODES: dict[int, tuple[str, str]] = {
    1000: ("Done, after `session.close`", "stop"),
    1001: ("The other side goes away", "resume or open a new session"),
    1003: ("An event came as a binary message", "fix the client"),
    1006: ("The connection was lost (never on the wire)", "resume now"),
    1007: ("Too many wrong messages", "fix the client"),
    1009: ("A message was too large", "fix the client"),
    1011: ("The session failed in the server", "retry with backoff"),
    1012: ("The server drains or restarts", "resume now"),
    4400: ("The protocol was not kept", "do not retry"),
    4401: ("Token missing, wrong or expired", "do not retry with the same token"),
    4403: ("Not allowed", "do not retry"),
    4404: ("No such avatar or session", "do not retry"),
    4408: ("Idle, or too slow", "open a new session"),
    4409: ("Taken over by a newer connection", "stop"),
    4410: ("The longest duration was reached", "open a new session"),
    4429: ("Full or over quota; see `retry_after_s`", "retry later"),
    4503: ("The model is still loading", "retry later"),
}

AvatarState = Literal["idle", "listening", "speaking"]
Degradation = Literal["steps", "size", "fps"]
DropReason = Literal["slow_client", "late"]
ExpiryReason = Literal["server_draining", "engine_restarting", "max_duration", "idle"]
IdlePolicy = Literal["generate", "loop", "freeze"]
OnDisconnect = Literal["hold", "end"]
ResponseStatus = Literal["completed", "cancelled", "failed"]
VideoFormat = Literal["h264", "jpeg", "fmp4", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is inside of events. `raw` is the message that it was read from."""

    INNER: ClassVar[Mapping[str, type[Body]]] = {}

    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Self:
        """Take the known fields. Raises TypeError when one without a default is missing."""
        known = {item.name for item in fields(cls)} - {"raw"}
        values = {name: value for name, value in message.items() if name in known}
        for name, kind in cls.INNER.items():
            if isinstance(values.get(name), Mapping):
                values[name] = kind.from_json(values[name])
        return cls(**values, raw=dict(message))

    def to_json(self) -> Json:
        """The message, without what is None."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values.pop("raw")
        return {
            name: value.to_json() if isinstance(value, Body) else value
            for name, value in values.items()
            if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Body):
    """Either side's event."""

    TYPE: ClassVar[str] = ""

    event_id: str | None = None

    def to_json(self) -> Json:
        """The message, without what is None."""
        # Dataclasses with slots are made anew, so that super() without arguments would not do.
        return {"type": self.TYPE, **Body.to_json(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent(Event):
    """What a client may say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent(Event):
    """What the server says; an event of a later version is one without a class of its own."""

    source_event_id: str | None = None

    @property
    def type(self) -> str:
        """The wire name."""
        return self.TYPE or str(self.raw.get("type", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAudio(Body):
    """Format of the caller's audio: signed 16-bit little-endian mono."""

    format: Literal["pcm16"] = "pcm16"
    # Sample rate in Hz; the avatar's voice comes back at the same.
    rate: int = 16000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMedia(Body):
    """What the client wants back. What is in force is said by session.updated."""

    # h264: Annex B access units; jpeg: one picture a message; fmp4: fragments for Media Source
    # Extensions; none: sound and timing only.
    video: VideoFormat = "h264"
    audio: Literal["pcm16"] = "pcm16"
    # Pictures a second, one of `output.fps` of session.created; sound comes with every frame of 40
    # ms all the same. Default: 25.
    fps: float | None = None
    # Pixels, even, within `output` of session.created. One side is enough: pictures keep the
    # model's shape. Default: the model's own size.
    width: int | None = None
    # As `width`.
    height: int | None = None
    # Of JPEG pictures; other formats keep their own.
    quality: int = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings(Body):
    """The body of session.update. The first one names an avatar or brings an image; later ones
    change `idle` and `on_disconnect` only, and leave the rest out or as it is.
    """

    INNER: ClassVar[Mapping[str, type[Body]]] = {"input_audio": InputAudio, "output": OutputMedia}

    # An id of GET /v1/avatars.
    avatar_id: str | None = None
    # A JPEG, PNG or WebP file as base64; never an address.
    image: str | None = None
    # The person in `image` has agreed. Servers may refuse an image without it (`consent_required`).
    consent: bool = False
    # A text for models with `features.prompt`; others say in `warnings` that they do not follow it.
    prompt: str | None = None
    # The same seed and speech give the same frames.
    seed: int = 0
    # Default: pcm16 at 16,000 Hz.
    input_audio: InputAudio | None = None
    # Default: h264 with pcm16.
    output: OutputMedia | None = None
    # What is shown while nobody speaks: frames made on silence, a stretch of them there and back,
    # or the last frame. Default: generate.
    idle: IdlePolicy | None = None
    # hold keeps the session for `resume.ttl_s` after the socket was lost. Default: end.
    on_disconnect: OnDisconnect | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Body):
    """What the server enforces, told before it is."""

    # Of one client message.
    max_message_bytes: int
    # Audio accepted ahead of the engine; more is refused whole.
    max_buffered_input_ms: int
    # From its place on; then the session ends with 4410.
    max_session_s: float
    # So long without a client event or speech, then 4408.
    idle_timeout_s: float
    # Media sent and not acknowledged by playback.update.
    max_inflight_ms: int
    # So long without credit or reading, then 4408.
    slow_client_s: float | None = None
    # Seconds of audio accepted per second, beyond a first buffer full.
    max_input_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Body):
    """The engine's granularity."""

    # Frames a second.
    fps: float
    # New frames of the longest chunk.
    chunk_frames: int
    # Speech that the longest chunk covers.
    chunk_ms: float
    # Median from first audio to first frame sent; null until measured.
    first_frame_ms_p50: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOffer(Body):
    """What `output` of session.update may ask for."""

    # Formats.
    video: list[str]
    # Pictures a second, the default first.
    fps: list[float]
    # Of the model's own pictures, in pixels.
    width: int
    # Of the model's own pictures, in pixels.
    height: int
    min_width: int
    max_width: int
    min_height: int
    max_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Features(Body):
    """What the model can do, of what not every model can."""

    # Whether `prompt` of session.update is followed.
    prompt: bool
    # Whether the avatar looks different while it listens.
    listening: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeOffer(Body):
    """How to come back after a lost connection."""

    # For session.resume; signed and opaque. A secret.
    handle: str
    # How long a lost session is kept.
    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveOutput(Body):
    """The media that is really sent."""

    video: VideoFormat
    # RFC 6381 string for VideoDecoder or MediaSource; jpeg; none.
    codec: str
    audio: str
    # Hz; always the input's.
    audio_rate: int
    # Pictures a second.
    fps: float
    # Pixels.
    width: int
    # Pixels.
    height: int
    quality: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSettings(Body):
    """What is in force, which may differ from what was asked for."""

    INNER: ClassVar[Mapping[str, type[Body]]] = {
        "input_audio": InputAudio,
        "output": EffectiveOutput,
    }

    avatar_id: str | None
    input_audio: InputAudio
    output: EffectiveOutput
    idle: IdlePolicy
    on_disconnect: OnDisconnect
    seed: int
    # What about the picture may hurt the result; what is not followed.
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody(Body):
    """What went wrong; also the body of HTTP errors."""

    # Whose fault and what kind; see the error types.
    type: str
    # What exactly; see the error codes.
    code: str
    # For people; its wording may change.
    message: str
    # The field, as a dotted path.
    param: str | None = None
    # The same may work later, without a change.
    retryable: bool = False
    # How long to wait at least.
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdate(ClientEvent):
    """First event of a new session; later only `idle` and `on_disconnect` may change.

    Answered by session.updated.
    """

    TYPE: ClassVar[str] = "session.update"
    INNER: ClassVar[Mapping[str, type[Body]]] = {"session": SessionSettings}

    session: SessionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResume(ClientEvent):
    """First event on a new socket for a session that lost its own. Answered by session.resumed.

    The handle alone is the right to the session: whoever sends it takes over, and an older
    socket that is still open is closed with 4409.
    """

    TYPE: ClassVar[str] = "session.resume"

    # `resume.handle` of session.created.
    handle: str
    # `seq` of the last media message received; null for none.
    last_seq: int | None = None
    # `event_id` of the last event received; later ones are sent again.
    last_event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioAppend(ClientEvent):
    """Speech for the open utterance; the base64 twin of the binary AUDIO_IN message."""

    TYPE: ClassVar[str] = "input_audio_buffer.append"

    # pcm16 as base64, whole samples.
    audio: str
    # Name of a response; the client may choose it with the first audio.
    response_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioCommit(ClientEvent):
    """End of the utterance. Answered by input_audio_buffer.committed."""

    TYPE: ClassVar[str] = "input_audio_buffer.commit"

    # Name of a response; the client may choose it with the first audio.
    response_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioClear(ClientEvent):
    """Drop what the engine has not taken of the open utterance.

    Answered by input_audio_buffer.cleared.
    """

    TYPE: ClassVar[str] = "input_audio_buffer.clear"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCancel(ClientEvent):
    """Barge-in. With an id that response and all later ones end, without one everything.

    Never an error, also when nothing is said. Answered by output.cleared and the response.done
    of what was open.
    """

    TYPE: ClassVar[str] = "response.cancel"

    # Name of a response; the client may choose it with the first audio.
    response_id: str | None = None
    # The client goes on playing for so long, its sound fading to silence, and the face goes on from
    # there. Bounded to 0..500; default 0.
    fade_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState(ClientEvent):
    """What the avatar does while it does not speak. Answered by avatar.state_changed on change."""

    TYPE: ClassVar[str] = "avatar.set_state"

    state: Literal["idle", "listening"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKeyframe(ClientEvent):
    """The client's decoder lost its thread: the next frame made can be decoded alone."""

    TYPE: ClassVar[str] = "output.request_keyframe"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackUpdate(ClientEvent):
    """Where the client's playback stands, every 250 to 500 ms; the credit of the flow control."""

    TYPE: ClassVar[str] = "playback.update"

    # The frame on screen.
    pts_us: int
    # `seq` of the last media message received.
    seq: int = 0
    # Media received and not shown.
    buffered_ms: float = 0.0
    # Times that media came too late, in all.
    underruns: int = 0
    # Video behind sound, if the client measures it.
    skew_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPing(ClientEvent):
    """Round trip and clock offset. Answered by session.pong."""

    TYPE: ClassVar[str] = "session.ping"

    # Comes back as it is.
    t: float | int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClose(ClientEvent):
    """Leave. The server closes with 1000."""

    TYPE: ClassVar[str] = "session.close"

    # Speak what was committed to its end first.
    drain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCreated(ServerEvent):
    """The server's greeting: what counts for a session that is opened here."""

    TYPE: ClassVar[str] = "session.created"
    INNER: ClassVar[Mapping[str, type[Body]]] = {
        "limits": Limits,
        "timing": Timing,
        "output": OutputOffer,
        "features": Features,
        "resume": ResumeOffer,
    }

    session_id: str
    protocol: int = 1
    server_version: str
    engine: str
    model: str
    limits: Limits
    timing: Timing
    # What session.update may ask for.
    output: OutputOffer | None = None
    features: Features | None = None
    # null when this server holds no sessions.
    resume: ResumeOffer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQueued(ServerEvent):
    """All places are taken; the client waits for one. Repeated when something changes.

    Comes after session.update and before session.loading. A client that does not want to wait
    leaves.
    """

    TYPE: ClassVar[str] = "session.queued"

    # 1 is next.
    position: int
    # Estimate; null when nobody can tell.
    eta_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLoading(ServerEvent):
    """The avatar is being prepared."""

    TYPE: ClassVar[str] = "session.loading"

    # avatar, or another of later versions.
    stage: str
    # 0 to 1, by steps and not by time.
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated(ServerEvent):
    """The settings in force. After the first one the avatar lives and frames flow."""

    TYPE: ClassVar[str] = "session.updated"
    INNER: ClassVar[Mapping[str, type[Body]]] = {"session": EffectiveSettings}

    session: EffectiveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResumed(ServerEvent):
    """The session goes on on this socket; what is still in time is sent again first."""

    TYPE: ClassVar[str] = "session.resumed"
    INNER: ClassVar[Mapping[str, type[Body]]] = {
        "session": EffectiveSettings,
        "resume": ResumeOffer,
    }

    session_id: str
    # `seq` of the next media message.
    from_seq: int
    # Frames sent after `last_seq` that will not come again.
    lost_frames: int
    epoch: int
    # `pts_us` of the next media message.
    from_pts_us: int
    # The settings, as before.
    session: EffectiveSettings
    # The handle for the next time.
    resume: ResumeOffer
    # `seq` of the last AUDIO_IN taken: send again what came after it.
    received_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioAppended(ServerEvent):
    """Audio has come; at most twice a second."""

    TYPE: ClassVar[str] = "input_audio_buffer.appended"

    # Of the open utterance, so far.
    received_ms: float
    # Not consumed by the engine, of all.
    buffered_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioCommitted(ServerEvent):
    """The utterance has its end."""

    TYPE: ClassVar[str] = "input_audio_buffer.committed"

    response_id: str
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioCleared(ServerEvent):
    """What was dropped of the open utterance."""

    TYPE: ClassVar[str] = "input_audio_buffer.cleared"

    dropped_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCreated(ServerEvent):
    """An utterance has begun with its first audio."""

    TYPE: ClassVar[str] = "response.created"

    response_id: str
    # Counts responses from 1; stands in the header of their frames.
    response_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted(ServerEvent):
    """Directly before the first frame of a response."""

    TYPE: ClassVar[str] = "response.started"

    response_id: str
    # Counts responses from 1; stands in the header of their frames.
    response_index: int
    # Of its first frame.
    pts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDone(ServerEvent):
    """Exactly one for every response.created."""

    TYPE: ClassVar[str] = "response.done"

    response_id: str
    # Counts responses from 1; stands in the header of their frames.
    response_index: int
    status: ResponseStatus
    # Made by the engine.
    generated_ms: float
    # Sent to the client.
    sent_ms: float
    # Shown, by the client's word; null for one that never says.
    played_ms: float | None
    # Why it did not complete.
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(ServerEvent):
    """What the avatar does from a place of the timeline on."""

    TYPE: ClassVar[str] = "avatar.state_changed"

    state: AvatarState
    # A place on the session's media timeline, in microseconds.
    pts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCleared(ServerEvent):
    """A cancel took effect: discard all media of a lower epoch now."""

    TYPE: ClassVar[str] = "output.cleared"

    # Of all media from here on.
    epoch: int
    # Of the next frame; show it as soon as it is there.
    from_pts_us: int
    # First play what is there for so long, fading to silence.
    fade_ms: int = 0
    # The last frame seen, as far as the server knows; the face goes on there
    shown_pts_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDropped(ServerEvent):
    """Pictures were left out, and the sound of those frames was sent all the same."""

    TYPE: ClassVar[str] = "output.dropped"

    # Since the last such event.
    frames: int
    reason: DropReason


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats(ServerEvent):
    """How the engine keeps up; every few seconds."""

    TYPE: ClassVar[str] = "session.stats"

    # Time to make frames over the time that they play; below 1 is good.
    rtf: float | None
    gen_fps: float
    # Media made and not sent.
    queue_ms: float
    # Of one frame.
    encode_ms: float
    # Pictures left out so far.
    dropped: int
    # What was lowered to keep up, by the server's policy.
    degraded: list[Degradation] | None = None
    # Denoising steps in use.
    num_steps: int | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpiring(ServerEvent):
    """The session will end, and when. Sent before every end that the server decides."""

    TYPE: ClassVar[str] = "session.expiring"

    reason: ExpiryReason
    # Seconds from now.
    deadline_s: float
    # Whether session.resume will work after it, on another replica.
    resumable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPong(ServerEvent):
    """The answer to session.ping."""

    TYPE: ClassVar[str] = "session.pong"

    t: float | int | str | None
    # The server's monotonic clock.
    server_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent(ServerEvent):
    """Something was refused or broke. The socket stays open unless the code has a close code."""

    TYPE: ClassVar[str] = "error"
    INNER: ClassVar[Mapping[str, type[Body]]] = {"error": ErrorBody}

    error: ErrorBody


CLIENT_EVENTS: dict[str, type[ClientEvent]] = {
    kind.TYPE: kind
    for kind in (
        SessionUpdate,
        SessionResume,
        AudioAppend,
        AudioCommit,
        AudioClear,
        ResponseCancel,
        SetState,
        RequestKeyframe,
        PlaybackUpdate,
        SessionPing,
        SessionClose,
    )
}


SERVER_EVENTS: dict[str, type[ServerEvent]] = {
    kind.TYPE: kind
    for kind in (
        SessionCreated,
        SessionQueued,
        SessionLoading,
        SessionUpdated,
        SessionResumed,
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


def server_event(message: Mapping[str, Any]) -> ServerEvent:
    """The event in a decoded text message; a plain ServerEvent when its type is not known.

    Raises TypeError when a field without a default is missing.
    """
    return SERVER_EVENTS.get(str(message.get("type")), ServerEvent).from_json(message)
