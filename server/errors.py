"""Public error codes, their types and the close codes that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ErrorType(StrEnum):
    """The `error.type` of the protocol: whose fault, and what kind."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    RATE_LIMIT = "rate_limit_error"
    CAPACITY = "capacity_error"
    ENGINE = "engine_error"
    SERVER = "server_error"


class ErrorCode(StrEnum):
    """The `error.code` values that this server can send."""

    INVALID_JSON = "invalid_json"
    INVALID_EVENT = "invalid_event"
    INVALID_FRAME = "invalid_frame"
    UNSUPPORTED_DATA = "unsupported_data"
    INVALID_AUDIO = "invalid_audio"
    INVALID_SAMPLE_RATE = "invalid_sample_rate"
    INVALID_IMAGE = "invalid_image"
    INVALID_AVATAR_ID = "invalid_avatar_id"
    UNSUPPORTED_VALUE = "unsupported_value"
    IMMUTABLE_FIELD = "immutable_field"
    SESSION_NOT_CONFIGURED = "session_not_configured"
    SESSION_UPDATE_TIMEOUT = "session_update_timeout"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_ERRORS = "too_many_errors"
    INPUT_BUFFER_EMPTY = "input_buffer_empty"
    INPUT_BUFFER_OVERFLOW = "input_buffer_overflow"
    INPUT_RATE_EXCEEDED = "input_rate_exceeded"
    RESPONSE_NOT_FOUND = "response_not_found"
    AVATAR_NOT_FOUND = "avatar_not_found"
    AVATAR_READ_ONLY = "avatar_read_only"
    CONSENT_REQUIRED = "consent_required"
    MISSING_TOKEN = "missing_token"
    INVALID_TOKEN = "invalid_token"
    TOKEN_EXPIRED = "token_expired"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_PERMITTED = "not_permitted"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    CAPACITY = "capacity"
    MODEL_LOADING = "model_loading"
    ENGINE_FAILED = "engine_failed"
    ENGINE_RESTARTING = "engine_restarting"
    SERVER_DRAINING = "server_draining"
    IDLE_TIMEOUT = "idle_timeout"
    MAX_DURATION = "max_duration"
    SLOW_CLIENT = "slow_client"
    INVALID_RESUME_HANDLE = "invalid_resume_handle"
    RESUME_EXPIRED = "resume_expired"
    RESUME_ELSEWHERE = "resume_elsewhere"
    TAKEN_OVER = "taken_over"
    SESSION_ENDED = "session_ended"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """How one code behaves.

    `close`: the WebSocket close code that follows, None = the socket stays open. `http`: the
    status where the same error answers a request. `meaning`: for the documents made from this.
    """

    type: ErrorType
    meaning: str
    close: int | None = None
    retryable: bool = False
    http: int = 400


_INVALID = ErrorType.INVALID_REQUEST
_E = ErrorCode
ERRORS: dict[ErrorCode, ErrorSpec] = {
    _E.INVALID_JSON: ErrorSpec(_INVALID, "No JSON object with a string `type`"),
    _E.INVALID_EVENT: ErrorSpec(_INVALID, "A known event with a wrong field, named by `param`"),
    _E.INVALID_FRAME: ErrorSpec(_INVALID, "A binary message whose lengths do not add up"),
    _E.UNSUPPORTED_DATA: ErrorSpec(
        _INVALID, "An event that came as a binary message; events are text", close=1003
    ),
    _E.INVALID_AUDIO: ErrorSpec(_INVALID, "Bad base64, or half a sample"),
    _E.INVALID_SAMPLE_RATE: ErrorSpec(_INVALID, "Outside 8,000..48,000 Hz"),
    _E.INVALID_IMAGE: ErrorSpec(
        _INVALID, "No picture, no face, or too large; the message says what would help", http=422
    ),
    _E.INVALID_AVATAR_ID: ErrorSpec(_INVALID, "Characters that no id has"),
    _E.UNSUPPORTED_VALUE: ErrorSpec(
        _INVALID, "A format, size or rate that this server does not have"
    ),
    _E.IMMUTABLE_FIELD: ErrorSpec(
        _INVALID, "A later `session.update` that would change more than it may"
    ),
    _E.SESSION_NOT_CONFIGURED: ErrorSpec(_INVALID, "Something came before `session.update`"),
    _E.SESSION_UPDATE_TIMEOUT: ErrorSpec(
        _INVALID, "No `session.update` or `session.resume` in time", close=4400
    ),
    _E.UNSUPPORTED_PROTOCOL: ErrorSpec(
        _INVALID, "Subprotocols were offered, and `avatar.v1` is none of them", close=4400
    ),
    _E.MESSAGE_TOO_LARGE: ErrorSpec(
        _INVALID,
        "Above `max_message_bytes`; at twice that the socket is closed without an event",
        close=1009,
        http=413,
    ),
    _E.TOO_MANY_ERRORS: ErrorSpec(_INVALID, "Twenty wrong messages", close=1007),
    _E.INPUT_BUFFER_EMPTY: ErrorSpec(_INVALID, "Commit without audio"),
    _E.INPUT_BUFFER_OVERFLOW: ErrorSpec(
        ErrorType.RATE_LIMIT, "More audio than `max_buffered_input_ms`", retryable=True, http=429
    ),
    _E.INPUT_RATE_EXCEEDED: ErrorSpec(
        ErrorType.RATE_LIMIT, "Audio faster than `max_input_rate`", retryable=True, http=429
    ),
    _E.RESPONSE_NOT_FOUND: ErrorSpec(
        ErrorType.NOT_FOUND, "The id is not that of the open utterance, or was used", http=404
    ),
    _E.AVATAR_NOT_FOUND: ErrorSpec(
        ErrorType.NOT_FOUND, "There is no such avatar", close=4404, http=404
    ),
    _E.AVATAR_READ_ONLY: ErrorSpec(
        ErrorType.PERMISSION, "A built-in avatar cannot be deleted (HTTP only)", http=403
    ),
    _E.CONSENT_REQUIRED: ErrorSpec(
        ErrorType.PERMISSION, "A portrait without the consent flag", http=403
    ),
    _E.MISSING_TOKEN: ErrorSpec(
        ErrorType.AUTHENTICATION, "This server wants a key or token", close=4401, http=401
    ),
    _E.INVALID_TOKEN: ErrorSpec(
        ErrorType.AUTHENTICATION, "The key or token is not one of this server", close=4401, http=401
    ),
    _E.TOKEN_EXPIRED: ErrorSpec(
        ErrorType.AUTHENTICATION, "The token is too old; get a new one", close=4401, http=401
    ),
    _E.ORIGIN_NOT_ALLOWED: ErrorSpec(
        ErrorType.PERMISSION,
        "The page's origin may not connect, or the server was called by a name that is not its own",
        close=4403,
        http=403,
    ),
    _E.NOT_PERMITTED: ErrorSpec(
        ErrorType.PERMISSION, "The key or token does not allow this", close=4403, http=403
    ),
    _E.RATE_LIMITED: ErrorSpec(
        ErrorType.RATE_LIMIT, "Too many requests of one key (HTTP only)", retryable=True, http=429
    ),
    _E.QUOTA_EXCEEDED: ErrorSpec(
        ErrorType.RATE_LIMIT, "The key's quota is used up", close=4429, retryable=True, http=429
    ),
    _E.CAPACITY: ErrorSpec(
        ErrorType.CAPACITY,
        "All places are taken, and the queue is full or was too long; or too much came at once",
        close=4429,
        retryable=True,
        http=429,
    ),
    _E.MODEL_LOADING: ErrorSpec(
        ErrorType.CAPACITY, "The model is not there yet", close=4503, retryable=True, http=503
    ),
    _E.ENGINE_FAILED: ErrorSpec(
        ErrorType.ENGINE,
        "This session failed; others live on",
        close=1011,
        retryable=True,
        http=500,
    ),
    _E.ENGINE_RESTARTING: ErrorSpec(
        ErrorType.ENGINE,
        "Processes of the engine are started anew; connect again, and resume if that was said",
        close=1012,
        retryable=True,
        http=503,
    ),
    _E.INTERNAL_ERROR: ErrorSpec(
        ErrorType.SERVER, "A fault of the server", close=1011, retryable=True, http=500
    ),
    _E.SERVER_DRAINING: ErrorSpec(
        ErrorType.SERVER, "The server stops; connect again", close=1012, retryable=True, http=503
    ),
    _E.IDLE_TIMEOUT: ErrorSpec(
        ErrorType.CAPACITY, "The place is for others; announced by `session.expiring`", close=4408
    ),
    _E.MAX_DURATION: ErrorSpec(ErrorType.RATE_LIMIT, "Announced by `session.expiring`", close=4410),
    _E.SLOW_CLIENT: ErrorSpec(
        _INVALID,
        "No credit, or no reading, for `limits.slow_client_s`, or 1,024 events unread",
        close=4408,
    ),
    _E.INVALID_RESUME_HANDLE: ErrorSpec(
        ErrorType.PERMISSION, "The handle was not made by this service", close=4403, http=403
    ),
    _E.RESUME_EXPIRED: ErrorSpec(
        ErrorType.NOT_FOUND, "The session is gone; open a new one", close=4404, http=404
    ),
    _E.RESUME_ELSEWHERE: ErrorSpec(
        ErrorType.SERVER,
        "The session lives on another replica; connect again, the router will find it",
        close=1012,
        retryable=True,
        http=503,
    ),
    _E.TAKEN_OVER: ErrorSpec(
        ErrorType.PERMISSION, "The session goes on on a newer connection", close=4409, http=409
    ),
    _E.SESSION_ENDED: ErrorSpec(
        ErrorType.PERMISSION, "An administrator ended the session", close=4403, http=403
    ),
}


@dataclass(frozen=True, slots=True)
class CloseSpec:
    """One WebSocket close code: when it is sent, and what a client does about it."""

    meaning: str
    client: str


CLOSE_CODES: dict[int, CloseSpec] = {
    1000: CloseSpec("Done, after `session.close`", "stop"),
    1001: CloseSpec("The other side goes away", "resume or open a new session"),
    1003: CloseSpec("An event came as a binary message", "fix the client"),
    1006: CloseSpec("The connection was lost (never on the wire)", "resume now"),
    1007: CloseSpec("Too many wrong messages", "fix the client"),
    1009: CloseSpec("A message was too large", "fix the client"),
    1011: CloseSpec("The session failed in the server", "retry with backoff"),
    1012: CloseSpec("The server drains or restarts", "resume now"),
    4400: CloseSpec("The protocol was not kept", "do not retry"),
    4401: CloseSpec("Token missing, wrong or expired", "do not retry with the same token"),
    4403: CloseSpec("Not allowed", "do not retry"),
    4404: CloseSpec("No such avatar or session", "do not retry"),
    4408: CloseSpec("Idle, or too slow", "open a new session"),
    4409: CloseSpec("Taken over by a newer connection", "stop"),
    4410: CloseSpec("The longest duration was reached", "open a new session"),
    4429: CloseSpec("Full or over quota; see `retry_after_s`", "retry later"),
    4503: CloseSpec("The model is still loading", "retry later"),
}


class ProtocolError(ValueError):
    """Something the client did, or the server cannot do, as it is told on the wire.

    `param` names the field, `event_id` the client event that caused it; the code's `ErrorSpec`
    says whether the socket is closed after it.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        event_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.event_id = event_id
        self.retry_after_s = retry_after_s

    @property
    def spec(self) -> ErrorSpec:
        return ERRORS[self.code]
