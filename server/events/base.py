"""What all events share: the envelope, the closed sets of words, the bounds of names.

The structs of this package are the one definition of the protocol's JSON half. The AsyncAPI
document, the TypeScript and the Python types are made from them (`visavis.server.schema`), so a
field's meaning is written here and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

IdlePolicy = Literal["generate", "loop", "freeze"]
VideoFormat = Literal["h264", "jpeg", "fmp4", "none"]
AvatarState = Literal["idle", "listening", "speaking"]
ResponseStatus = Literal["completed", "cancelled", "failed"]
OnDisconnect = Literal["hold", "end"]
ExpiryReason = Literal["server_draining", "engine_restarting", "max_duration", "idle"]
DropReason = Literal["slow_client", "late"]
Degradation = Literal["steps", "size", "fps"]
# The longest text taken for a name chosen by the client (response and event ids).
MAX_ID_LENGTH = 64

ResponseId = Annotated[
    str,
    Meta(
        description="Name of a response; the client may choose it with the first audio.",
        extra_json_schema={"minLength": 1, "maxLength": MAX_ID_LENGTH},
    ),
]
Milliseconds = Annotated[float, Meta(description="Milliseconds.")]
TimelineUs = Annotated[
    int, Meta(description="A place on the session's media timeline, in microseconds.")
]


class ClientEvent(Struct, kw_only=True, tag_field="type"):
    """Fields common to all client events."""

    event_id: Annotated[
        str | None,
        Meta(description="Chosen by the client; replies carry it as `source_event_id`."),
    ] = None


class ServerEvent(Struct, kw_only=True, tag_field="type"):
    """Fields common to all server events."""

    event_id: Annotated[str, Meta(description="Unique in the session; stamped on sending.")] = ""
    source_event_id: Annotated[
        str | UnsetType, Meta(description="`event_id` of the client event that this answers.")
    ] = UNSET


def event_type(kind: type[Struct]) -> str:
    """The wire name of an event class, such as `session.update`."""
    return str(kind.__struct_config__.tag)
