"""What a session is made of, as one message from a replica to another. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from visavis.server.conversation import ConversationState
from visavis.server.event_queue import OutboundState
from visavis.server.negotiation import SessionSetup
from visavis.server.order import StreamState

# Replicas of another version do not read it: a session that they cannot go on with ends as usual.
BUNDLE_VERSION = 1


class BundleError(ValueError):
    """A bundle that this version, or this model, cannot go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A session between two frames.

    `caller`: the name of whoever opened it; `avatar_digest`: of the stored avatar's picture, so
    that nobody comes back as somebody else; `age_s`: how long the session has lasted.
    """

    version: int
    model: str
    session_id: str
    caller: str | None
    setup: SessionSetup
    avatar_digest: str | None
    age_s: float
    received_seq: int | None
    stream: StreamState
    conversation: ConversationState
    out: OutboundState


_decoder = msgspec.msgpack.Decoder(Bundle)


def pack_bundle(bundle: Bundle) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(bundle)


def unpack_bundle(data: bytes) -> Bundle:
    """Raises BundleError for bytes of another shape or version."""
    try:
        bundle = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BundleError(f"not a session that this version can read: {error}") from error
    if bundle.version != BUNDLE_VERSION:
        raise BundleError(f"version={bundle.version}: this replica reads {BUNDLE_VERSION}")
    return bundle
