"""Events to JSON text and back. The unknown is ignored, the wrong refused by name."""

from __future__ import annotations

from typing import Any, Union

import msgspec
from msgspec import Struct

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events.base import ClientEvent, ServerEvent, event_type
from visavis.server.events.client import CLIENT_EVENTS
from visavis.server.events.server import SERVER_EVENTS, ErrorBody, ErrorEvent


class _Envelope(Struct):
    type: str
    event_id: str | None = None


class _GivenUpdate(Struct):
    session: dict[str, Any]


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_SERVER_DECODER: msgspec.json.Decoder[ServerEvent] = msgspec.json.Decoder(
    Union[SERVER_EVENTS]  # noqa: UP007  # a tuple of types
)
_DECODERS = {event_type(kind): msgspec.json.Decoder(kind) for kind in CLIENT_EVENTS}


def is_event(data: bytes) -> bool:
    """Whether the bytes of a binary message are the JSON of an event, which belongs into a text
    message."""
    if not data.startswith(b"{"):
        return False
    try:
        _ENVELOPE.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


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
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
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


def given_settings(text: str | bytes) -> dict[str, Any]:
    """The `session` of a session.update that `decode_client_event` took, without defaults."""
    return msgspec.json.decode(text, type=_GivenUpdate).session


def decode_server_event(text: str) -> ServerEvent:
    """An event that `encode_event` of this version wrote. Raises msgspec.DecodeError."""
    event: ServerEvent = _SERVER_DECODER.decode(text)
    return event


def encode_event(event: ServerEvent) -> str:
    """One server event as JSON text."""
    return msgspec.json.encode(event).decode()


def error_event(error: ProtocolError) -> ErrorEvent:
    """An error as it is told on the wire."""
    return ErrorEvent(
        error=ErrorBody(
            type=error.spec.type,
            code=error.code,
            message=error.message,
            param=error.param,
            event_id=error.event_id,
            retryable=error.spec.retryable,
            retry_after_s=error.retry_after_s,
        )
    )
