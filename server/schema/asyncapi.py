"""The protocol as an AsyncAPI 3 document, served at /v1/asyncapi.json."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from visavis.server import events as ev
from visavis.server import protocol
from visavis.server.errors import CLOSE_CODES, ERRORS

Json = dict[str, Any]
_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_CHANNEL = "#/channels/avatar"
_SECURITY = [{"$ref": "#/components/securitySchemes/bearer"}]


def asyncapi_document(version: str) -> Json:
    """The document for a server of that version; a fresh dict of plain JSON values."""
    client = [ev.event_type(kind) for kind in ev.CLIENT_EVENTS]
    server = [ev.event_type(kind) for kind in ev.SERVER_EVENTS]
    messages = {**_event_messages(), **_binary_messages()}
    client_messages = [*client, "AUDIO_IN"]
    server_messages = [*server, "MEDIA", "CODEC_CONFIG", "FMP4"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "visavis",
            "version": version,
            "description": "One WebSocket carries a live avatar: speech goes in as PCM, frames "
            "come back, each with its slice of that speech. Unknown fields, event types, binary "
            "kinds and flags are ignored by both sides.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"visavis": _server()},
        "channels": {
            "avatar": {
                "address": protocol.ENDPOINT,
                "description": "The live session. The server speaks first.",
                "messages": {name: {"$ref": _MESSAGES + name} for name in messages},
                "bindings": {"ws": {"method": "GET", "headers": _handshake()}},
            }
        },
        "operations": {
            "receive": _operation("receive", "What the server takes.", client_messages),
            "send": _operation("send", "What the server says.", server_messages),
        },
        "components": {
            "messages": messages,
            "schemas": {**_event_schemas(), "BinaryHeader": _binary_schema()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a token of POST /v1/realtime/client_secrets. "
                    f"Browsers offer the subprotocol {protocol.TOKEN_SUBPROTOCOL_PREFIX}<token>.",
                }
            },
        },
        "x-error-codes": {
            str(code): {
                "type": str(spec.type),
                "meaning": spec.meaning,
                "close": spec.close,
                "retryable": spec.retryable,
                "http": spec.http,
            }
            for code, spec in ERRORS.items()
        },
        "x-close-codes": {
            str(code): {"meaning": spec.meaning, "client": spec.client}
            for code, spec in CLOSE_CODES.items()
        },
    }


def _server() -> Json:
    return {
        "host": "{host}",
        "protocol": "ws",
        "description": "wss behind a proxy that ends TLS. A server without keys asks for none.",
        "variables": {
            "host": {"default": "localhost:8000", "description": "Where `visavis serve` listens."}
        },
        "security": _SECURITY,
    }


def _handshake() -> Json:
    return {
        "type": "object",
        "properties": {
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "description": f"{protocol.SUBPROTOCOL}, and the token of a browser as a second "
                "one, which is never selected.",
            },
            "Authorization": {"type": "string", "description": "Bearer, from servers."},
        },
    }


def _operation(action: str, summary: str, names: list[str]) -> Json:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": _CHANNEL},
        "security": _SECURITY,
        "messages": [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in names],
    }


def _event_messages() -> dict[str, Json]:
    messages: dict[str, Json] = {}
    for kind in (*ev.CLIENT_EVENTS, *ev.SERVER_EVENTS):
        text = inspect.getdoc(kind) or ""
        summary, _, more = text.partition("\n\n")
        name = ev.event_type(kind)
        messages[name] = {
            "name": name,
            "title": kind.__name__,
            "summary": " ".join(summary.split()),
            "contentType": "application/json",
            "payload": {"$ref": _SCHEMAS + kind.__name__},
        }
        if more:
            messages[name]["description"] = " ".join(more.split())
    return messages


def _event_schemas() -> dict[str, Json]:
    kinds = (*ev.CLIENT_EVENTS, *ev.SERVER_EVENTS)
    _, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS + "{name}")
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return components


def _binary_messages() -> dict[str, Json]:
    return {
        kind.name: {
            "name": kind.name,
            "summary": text,
            "contentType": "application/octet-stream",
            "payload": {"$ref": _SCHEMAS + "BinaryHeader"},
            "x-kind": int(kind),
        }
        for kind, text in protocol.KIND_MEANINGS.items()
    }


def _binary_schema() -> Json:
    fields, offset = [], 0
    for field in protocol.HEADER_FIELDS:
        fields.append(
            {
                "name": field.name,
                "type": field.wire_type,
                "offset": offset,
                "meaning": field.meaning,
            }
        )
        offset += field.size
    return {
        "type": "string",
        "format": "binary",
        "description": f"A little-endian header of {protocol.HEADER_LEN} bytes, then audio_len "
        "bytes of pcm16, then video_len bytes of video; the message ends there.",
        "x-header": fields,
        "x-kinds": {str(int(k)): f"{k.name}: {text}" for k, text in protocol.KIND_MEANINGS.items()},
        "x-flags": {str(int(f)): f"{f.name}: {text}" for f, text in protocol.FLAG_MEANINGS.items()},
    }
