"""What can go wrong, as exceptions that say what would help."""

from __future__ import annotations

# What a program, or its author, can do about each error code of the protocol.
REMEDIES = {
    "invalid_json": "report a bug in this client",
    "invalid_event": "correct the field named by `param`",
    "invalid_frame": "report a bug in this client",
    "invalid_audio": "send whole 16-bit samples",
    "invalid_sample_rate": "resample the audio to 8,000..48,000 Hz",
    "invalid_image": "use another picture: one face, looking at the camera",
    "invalid_avatar_id": "take an id of `avatars.list()`",
    "unsupported_value": "choose one of the values that the message names",
    "immutable_field": "open a new session with the other settings",
    "session_not_configured": "report a bug in this client",
    "session_update_timeout": "open a new session",
    "message_too_large": "upload the picture with `avatars.upload()`",
    "too_many_errors": "look at the errors that came before",
    "input_buffer_empty": "send audio before committing it",
    "input_buffer_overflow": "send the refused audio again later, or less at a time",
    "response_not_found": "use the id of the open utterance, or a new one",
    "avatar_not_found": "take an id of `avatars.list()`",
    "avatar_read_only": "delete only what was uploaded",
    "origin_not_allowed": "add the origin to VISAVIS_ALLOWED_ORIGINS of the server",
    "capacity": "try again after `retry_after_s`",
    "model_loading": "try again after `retry_after_s`",
    "engine_failed": "open a new session",
    "server_draining": "connect again",
    "idle_timeout": "open a new session when there is something to say",
    "max_duration": "open a new session",
    "slow_client": "read frames as fast as they come, in a task of their own",
}

# After these the server closes the socket.
CLOSING = frozenset(
    {
        "session_update_timeout",
        "message_too_large",
        "too_many_errors",
        "avatar_not_found",
        "origin_not_allowed",
        "capacity",
        "model_loading",
        "engine_failed",
        "server_draining",
        "idle_timeout",
        "max_duration",
        "slow_client",
    }
)


class AvatarError(Exception):
    """Base of all errors of this package. `remedy` says what would help."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy


class ConnectionFailedError(AvatarError):
    """The server cannot be reached, or does not speak this protocol."""


class TimedOutError(AvatarError, TimeoutError):
    """The server did not answer in time."""


class WireError(AvatarError, ValueError):
    """A message that is not of this protocol."""


class AudioFormatError(AvatarError, ValueError):
    """Audio of another kind than 16-bit PCM at the session's rate."""


class FrameDecodeError(AvatarError, ValueError):
    """A frame cannot be decoded, or its decoder is not installed."""


class ServerError(AvatarError):
    """An error that the server reported.

    `code` and `type` are those of docs/protocol.md; `param` names the field. `retryable` says
    whether the same may work later, `retry_after_s` when. `event_id` is that of the client event
    which caused it. `status` is the HTTP status, None for an error on the socket.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        type: str = "",
        param: str | None = None,
        event_id: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}", remedy=REMEDIES.get(code, ""))
        self.code = code
        self.type = type
        self.param = param
        self.event_id = event_id
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.status = status


class SessionClosedError(AvatarError):
    """The session is over. `close_code` is the WebSocket's; `error` the server's reason, if any."""

    def __init__(self, close_code: int | None, reason: str, error: ServerError | None) -> None:
        if error is not None:
            message, remedy = error.message, error.remedy
        else:
            message, remedy = reason or "the connection was lost", "open a new session"
        super().__init__(f"session closed ({close_code}): {message}", remedy=remedy)
        self.close_code = close_code
        self.error = error

    @property
    def code(self) -> str:
        """The server's error code, or `connection_lost`."""
        return self.error.code if self.error is not None else "connection_lost"


class ResponseFailedError(AvatarError):
    """The engine failed while it spoke an utterance."""
