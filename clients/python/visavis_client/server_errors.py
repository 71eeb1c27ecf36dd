"""A class for each error code of the protocol, so that `except` can choose.

Each is a ServerError, by way of the class of its type: `except CapacityError`, or wider
`except UnavailableError`, or all with `except ServerError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from visavis_client.errors import ServerError
from visavis_client.protocol import CLOSE_OF_ERROR, ErrorBody, ErrorCode, ErrorType


class TypedError(ServerError):
    """An error of a known type."""

    TYPE: ClassVar[ErrorType]


class CodedError(ServerError):
    """An error of a known code."""

    CODE: ClassVar[ErrorCode]


class InvalidRequestError(TypedError):
    """The request itself is wrong; the same will not work later."""

    TYPE = ErrorType.INVALID_REQUEST


class InvalidJsonError(InvalidRequestError, CodedError):
    """No JSON object with a string `type`."""

    CODE = ErrorCode.INVALID_JSON
    REMEDY = "report a bug in this client"


class InvalidEventError(InvalidRequestError, CodedError):
    """A known event with a wrong field, named by `param`."""

    CODE = ErrorCode.INVALID_EVENT
    REMEDY = "correct the field named by `param`"


class InvalidFrameError(InvalidRequestError, CodedError):
    """A binary message whose lengths do not add up."""

    CODE = ErrorCode.INVALID_FRAME
    REMEDY = "report a bug in this client"


class UnsupportedDataError(InvalidRequestError, CodedError):
    """An event that came as a binary message; events are text."""

    CODE = ErrorCode.UNSUPPORTED_DATA
    REMEDY = "report a bug in this client"


class InvalidAudioError(InvalidRequestError, CodedError):
    """Bad base64, or half a sample."""

    CODE = ErrorCode.INVALID_AUDIO
    REMEDY = "send whole 16-bit samples"


class InvalidSampleRateError(InvalidRequestError, CodedError):
    """Outside 8,000..48,000 Hz."""

    CODE = ErrorCode.INVALID_SAMPLE_RATE
    REMEDY = "resample the audio to 8,000..48,000 Hz"


class InvalidImageError(InvalidRequestError, CodedError):
    """No picture, no face, or too large; the message says what would help."""

    CODE = ErrorCode.INVALID_IMAGE
    REMEDY = "use another picture: one face, looking at the camera"


class InvalidAvatarIdError(InvalidRequestError, CodedError):
    """Characters that no id has."""

    CODE = ErrorCode.INVALID_AVATAR_ID
    REMEDY = "take an id of `avatars.list()`"


class UnsupportedValueError(InvalidRequestError, CodedError):
    """A format that this server does not have."""

    CODE = ErrorCode.UNSUPPORTED_VALUE
    REMEDY = "choose one of the values that the message names"


class ImmutableFieldError(InvalidRequestError, CodedError):
    """A later `session.update` that would change more than it may."""

    CODE = ErrorCode.IMMUTABLE_FIELD
    REMEDY = "open a new session with the other settings"


class SessionNotConfiguredError(InvalidRequestError, CodedError):
    """Something came before `session.update`."""

    CODE = ErrorCode.SESSION_NOT_CONFIGURED
    REMEDY = "report a bug in this client"


class SessionUpdateTimeoutError(InvalidRequestError, CodedError):
    """No `session.update` or `session.resume` in time."""

    CODE = ErrorCode.SESSION_UPDATE_TIMEOUT
    REMEDY = "open a new session"


class UnsupportedProtocolError(InvalidRequestError, CodedError):
    """Subprotocols were offered, and `avatar.v1` is none of them."""

    CODE = ErrorCode.UNSUPPORTED_PROTOCOL
    REMEDY = "use the client of the server's version"


class MessageTooLargeError(InvalidRequestError, CodedError):
    """Above `max_message_bytes`; at twice that the socket is closed without an event."""

    CODE = ErrorCode.MESSAGE_TOO_LARGE
    REMEDY = "upload the picture with `avatars.upload()`"


class TooManyErrorsError(InvalidRequestError, CodedError):
    """Twenty wrong messages."""

    CODE = ErrorCode.TOO_MANY_ERRORS
    REMEDY = "look at the errors that came before"


class InputBufferEmptyError(InvalidRequestError, CodedError):
    """Commit without audio."""

    CODE = ErrorCode.INPUT_BUFFER_EMPTY
    REMEDY = "send audio before committing it"


class SlowClientError(InvalidRequestError, CodedError):
    """No credit, or nothing read, for `limits.slow_client_s`; or 1,024 events unread."""

    CODE = ErrorCode.SLOW_CLIENT
    REMEDY = "read frames as fast as they come, in a task of their own"


class AuthenticationError(TypedError):
    """The server does not know who this is."""

    TYPE = ErrorType.AUTHENTICATION


class MissingTokenError(AuthenticationError, CodedError):
    """This server wants a key or token."""

    CODE = ErrorCode.MISSING_TOKEN
    REMEDY = "pass token=, an API key or a client secret"


class InvalidTokenError(AuthenticationError, CodedError):
    """The key or token is not one of this server."""

    CODE = ErrorCode.INVALID_TOKEN
    REMEDY = "check the key or token"


class TokenExpiredError(AuthenticationError, CodedError):
    """The token is too old; get a new one."""

    CODE = ErrorCode.TOKEN_EXPIRED
    REMEDY = "get a new one with `client_secrets.create()`"


class PermissionDeniedError(TypedError):
    """The server knows who this is, and does not allow it."""

    TYPE = ErrorType.PERMISSION


class AvatarReadOnlyError(PermissionDeniedError, CodedError):
    """A built-in avatar cannot be deleted (HTTP only)."""

    CODE = ErrorCode.AVATAR_READ_ONLY
    REMEDY = "delete only what was uploaded"


class ConsentRequiredError(PermissionDeniedError, CodedError):
    """An upload without the consent flag (HTTP only)."""

    CODE = ErrorCode.CONSENT_REQUIRED
    REMEDY = "pass consent=True once the person shown has agreed"


class OriginNotAllowedError(PermissionDeniedError, CodedError):
    """The page's origin may not connect."""

    CODE = ErrorCode.ORIGIN_NOT_ALLOWED
    REMEDY = "add the origin to VISAVIS_ALLOWED_ORIGINS of the server"


class NotPermittedError(PermissionDeniedError, CodedError):
    """The key or token does not allow this."""

    CODE = ErrorCode.NOT_PERMITTED
    REMEDY = "use a key that allows this"


class InvalidResumeHandleError(PermissionDeniedError, CodedError):
    """The handle was not made by this service."""

    CODE = ErrorCode.INVALID_RESUME_HANDLE
    REMEDY = "open a new session"


class SessionEndedError(PermissionDeniedError, CodedError):
    """An administrator ended the session."""

    CODE = ErrorCode.SESSION_ENDED
    REMEDY = "ask the server's administrator"


class TakenOverError(PermissionDeniedError, CodedError):
    """The session goes on on a newer connection."""

    CODE = ErrorCode.TAKEN_OVER
    REMEDY = "let only one client use a session"


class NotFoundError(TypedError):
    """There is no such thing, or no longer."""

    TYPE = ErrorType.NOT_FOUND


class AvatarNotFoundError(NotFoundError, CodedError):
    """There is no such avatar."""

    CODE = ErrorCode.AVATAR_NOT_FOUND
    REMEDY = "take an id of `avatars.list()`"


class ResponseNotFoundError(NotFoundError, CodedError):
    """The id is not that of the open utterance, or was used."""

    CODE = ErrorCode.RESPONSE_NOT_FOUND
    REMEDY = "use the id of the open utterance, or a new one"


class ResumeExpiredError(NotFoundError, CodedError):
    """The session is gone; open a new one."""

    CODE = ErrorCode.RESUME_EXPIRED
    REMEDY = "open a new session"


class TooMuchError(TypedError):
    """Too much or too often; the same works later."""

    TYPE = ErrorType.RATE_LIMIT


class InputBufferOverflowError(TooMuchError, CodedError):
    """More audio than `max_buffered_input_ms`."""

    CODE = ErrorCode.INPUT_BUFFER_OVERFLOW
    REMEDY = "send the refused audio again later, or less at a time"


class InputRateExceededError(TooMuchError, CodedError):
    """Audio faster than `max_input_rate`."""

    CODE = ErrorCode.INPUT_RATE_EXCEEDED
    REMEDY = "send the refused audio again after `retry_after_s`"


class RateLimitedError(TooMuchError, CodedError):
    """Too many requests of one key (HTTP only)."""

    CODE = ErrorCode.RATE_LIMITED
    REMEDY = "try again after `retry_after_s`"


class QuotaExceededError(TooMuchError, CodedError):
    """The key's quota is used up."""

    CODE = ErrorCode.QUOTA_EXCEEDED
    REMEDY = "close a session of the same key, or try again later"


class MaxDurationError(TooMuchError, CodedError):
    """Announced by `session.expiring`."""

    CODE = ErrorCode.MAX_DURATION
    REMEDY = "open a new session"


class UnavailableError(TypedError):
    """The server has no place now; the same works later."""

    TYPE = ErrorType.CAPACITY


class CapacityError(UnavailableError, CodedError):
    """All places are taken, and the queue is full or was too long."""

    CODE = ErrorCode.CAPACITY
    REMEDY = "try again after `retry_after_s`"


class ModelLoadingError(UnavailableError, CodedError):
    """The model is not there yet."""

    CODE = ErrorCode.MODEL_LOADING
    REMEDY = "try again after `retry_after_s`"


class IdleTimeoutError(UnavailableError, CodedError):
    """The place is for others; announced by `session.expiring`."""

    CODE = ErrorCode.IDLE_TIMEOUT
    REMEDY = "open a new session when there is something to say"


class EngineError(TypedError):
    """The engine broke."""

    TYPE = ErrorType.ENGINE


class EngineFailedError(EngineError, CodedError):
    """This session failed; others live on."""

    CODE = ErrorCode.ENGINE_FAILED
    REMEDY = "open a new session"


class EngineRestartingError(EngineError, CodedError):
    """Processes of the model were lost and are started anew; sessions that can be kept are held."""

    CODE = ErrorCode.ENGINE_RESTARTING
    REMEDY = "resume, or open a new session, after `retry_after_s`"


class ServerFaultError(TypedError):
    """The server stops, or is at fault."""

    TYPE = ErrorType.SERVER


class InternalError(ServerFaultError, CodedError):
    """A fault of the server."""

    CODE = ErrorCode.INTERNAL_ERROR
    REMEDY = "look at the server's log"


class ServerDrainingError(ServerFaultError, CodedError):
    """The server stops; connect again."""

    CODE = ErrorCode.SERVER_DRAINING
    REMEDY = "connect again"


class ResumeElsewhereError(ServerFaultError, CodedError):
    """The session lives on another replica; connect again, the router will find it."""

    CODE = ErrorCode.RESUME_ELSEWHERE
    REMEDY = "connect again"


BY_TYPE: Mapping[str, type[ServerError]] = {kind.TYPE: kind for kind in TypedError.__subclasses__()}
BY_CODE: Mapping[str, type[ServerError]] = {kind.CODE: kind for kind in CodedError.__subclasses__()}


def closes(code: str) -> bool:
    """Whether the server closes the socket after an error of this code."""
    return code in CLOSE_OF_ERROR


def server_error(body: Mapping[str, Any] | ErrorBody, status: int | None = None) -> ServerError:
    """The exception for an `error` object, from the socket or, with its `status`, from HTTP.

    A code of a later version becomes the class of its type, or a plain ServerError.
    """
    if isinstance(body, ErrorBody):
        body = body.raw
    code, kind = str(body.get("code", "unknown")), str(body.get("type", ""))
    cls = BY_CODE.get(code) or BY_TYPE.get(kind) or ServerError
    return cls(
        code,
        str(body.get("message", "the server gave no message")),
        type=kind,
        param=body.get("param"),
        event_id=body.get("event_id"),
        retryable=bool(body.get("retryable", False)),
        retry_after_s=body.get("retry_after_s"),
        status=status,
    )
