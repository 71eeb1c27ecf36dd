"""Text messages to typed events; the types are those of `visavis_client.protocol`."""

from __future__ import annotations

import json

from visavis_client.errors import WireError
from visavis_client.protocol import (
    AudioAppended,
    AudioCleared,
    AudioCommitted,
    ErrorEvent,
    OutputCleared,
    OutputDropped,
    ResponseCreated,
    ResponseDone,
    ResponseStarted,
    ServerEvent,
    SessionCreated,
    SessionExpiring,
    SessionLoading,
    SessionPong,
    SessionQueued,
    SessionResumed,
    SessionStats,
    SessionUpdated,
    StateChanged,
    server_event,
)

__all__ = [
    "AudioAppended",
    "AudioCleared",
    "AudioCommitted",
    "ErrorEvent",
    "OutputCleared",
    "OutputDropped",
    "ResponseCreated",
    "ResponseDone",
    "ResponseStarted",
    "ServerEvent",
    "SessionCreated",
    "SessionExpiring",
    "SessionLoading",
    "SessionPong",
    "SessionQueued",
    "SessionResumed",
    "SessionStats",
    "SessionUpdated",
    "StateChanged",
    "parse_event",
]


def parse_event(text: str | bytes) -> ServerEvent:
    """One text message; a plain ServerEvent when its type is not known here.

    Raises WireError when it is no JSON object with a string `type`, or lacks a field.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"damaged text message: {error}", remedy="") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise WireError('a text message is a JSON object with a string "type"', remedy="")
    try:
        return server_event(message)
    except TypeError as error:
        raise WireError(
            f"event {message['type']!r} lacks a field: {error}",
            remedy="check that server and client have the same protocol version",
        ) from error
