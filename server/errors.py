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
    INVALID_AUDIO = "invalid_audio"
    INVALID_SAMPLE_RATE = "invalid_sample_rate"
    INVALID_IMAGE = "invalid_image"
    INVALID_AVATAR_ID = "invalid_avatar_id"
    UNSUPPORTED_VALUE = "unsupported_value"
    IMMUTABLE_FIELD = "immutable_field"
    SESSION_NOT_CONFIGURED = "session_not_configured"
    SESSION_UPDATE_TIMEOUT = "session_update_timeout"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_ERRORS = "too_many_errors"
    INPUT_BUFFER_EMPTY = "input_buffer_empty"
    INPUT_BUFFER_OVERFLOW = "input_buffer_overflow"
    RESPONSE_NOT_FOUND = "response_not_found"
    AVATAR_NOT_FOUND = "avatar_not_found"
    AVATAR_READ_ONLY = "avatar_read_only"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    CAPACITY = "capacity"
    MODEL_LOADING = "model_loading"
    ENGINE_FAILED = "engine_failed"
    SERVER_DRAINING = "server_draining"
    IDLE_TIMEOUT = "idle_timeout"
    MAX_DURATION = "max_duration"
    SLOW_CLIENT = "slow_client"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """How one code behaves: `close` is the WebSocket close code that follows, None = stays open."""

    type: ErrorType
    close: int | None = None
    retryable: bool = False
    http: int = 400


_INVALID = ErrorType.INVALID_REQUEST
ERRORS: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.INVALID_JSON: ErrorSpec(_INVALID),
    ErrorCode.INVALID_EVENT: ErrorSpec(_INVALID),
    ErrorCode.INVALID_FRAME: ErrorSpec(_INVALID),
    ErrorCode.INVALID_AUDIO: ErrorSpec(_INVALID),
    ErrorCode.INVALID_SAMPLE_RATE: ErrorSpec(_INVALID),
    ErrorCode.INVALID_IMAGE: ErrorSpec(_INVALID, http=422),
    ErrorCode.INVALID_AVATAR_ID: ErrorSpec(_INVALID),
    ErrorCode.UNSUPPORTED_VALUE: ErrorSpec(_INVALID),
    ErrorCode.IMMUTABLE_FIELD: ErrorSpec(_INVALID),
    ErrorCode.SESSION_NOT_CONFIGURED: ErrorSpec(_INVALID),
    ErrorCode.SESSION_UPDATE_TIMEOUT: ErrorSpec(_INVALID, close=4400),
    ErrorCode.MESSAGE_TOO_LARGE: ErrorSpec(_INVALID, close=1009, http=413),
    ErrorCode.TOO_MANY_ERRORS: ErrorSpec(_INVALID, close=1007),
    ErrorCode.INPUT_BUFFER_EMPTY: ErrorSpec(_INVALID),
    ErrorCode.INPUT_BUFFER_OVERFLOW: ErrorSpec(ErrorType.RATE_LIMIT, retryable=True, http=429),
    ErrorCode.RESPONSE_NOT_FOUND: ErrorSpec(ErrorType.NOT_FOUND, http=404),
    ErrorCode.AVATAR_NOT_FOUND: ErrorSpec(ErrorType.NOT_FOUND, close=4404, http=404),
    ErrorCode.AVATAR_READ_ONLY: ErrorSpec(ErrorType.PERMISSION, http=403),
    ErrorCode.ORIGIN_NOT_ALLOWED: ErrorSpec(ErrorType.PERMISSION, close=4403, http=403),
    ErrorCode.CAPACITY: ErrorSpec(ErrorType.CAPACITY, close=4429, retryable=True, http=429),
    ErrorCode.MODEL_LOADING: ErrorSpec(ErrorType.CAPACITY, close=4503, retryable=True, http=503),
    ErrorCode.ENGINE_FAILED: ErrorSpec(ErrorType.ENGINE, close=1011, retryable=True, http=500),
    ErrorCode.SERVER_DRAINING: ErrorSpec(ErrorType.SERVER, close=1012, retryable=True, http=503),
    ErrorCode.IDLE_TIMEOUT: ErrorSpec(_INVALID, close=4408),
    ErrorCode.MAX_DURATION: ErrorSpec(_INVALID, close=4410),
    ErrorCode.SLOW_CLIENT: ErrorSpec(_INVALID, close=4408),
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
