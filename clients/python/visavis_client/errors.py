"""What can go wrong on this side, as exceptions that say what would help.

What the server reports is a `ServerError`; `server_errors` has a class for each code.
"""

from __future__ import annotations

from typing import ClassVar


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
    """A frame cannot be decoded."""


class MissingExtraError(AvatarError, ImportError):
    """A library is not installed that this needs; `remedy` is the pip command."""

    def __init__(self, what: str, *, library: str, extra: str) -> None:
        super().__init__(f"{what} needs {library}", remedy=f"pip install 'visavis-client[{extra}]'")


class MicrophoneError(AvatarError):
    """The sound card gives no sound."""


class ServerError(AvatarError):
    """An error that the server reported.

    `code` and `type` are those of docs/protocol.md; `param` names the field. `retryable` says
    whether the same may work later, `retry_after_s` when. `event_id` is that of the client event
    which caused it. `status` is the HTTP status, None for an error on the socket.
    """

    REMEDY: ClassVar[str] = ""

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
        super().__init__(f"{code}: {message}", remedy=self.REMEDY)
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
