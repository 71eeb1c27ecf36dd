"""Checks of who may connect, and of a server that cannot serve yet."""

from __future__ import annotations

from visavis.server.conformance.model import Check, CheckSkippedError, require
from visavis.server.conformance.peer import Event, Peer, Target, connected

ERROR_SECTION = "Errors"
# Of a domain that never is one.
STRANGE_ORIGIN = "https://conformance.invalid"
# Shaped like nothing: neither a key nor a token.
WRONG_TOKEN = "conformance-is-no-key-of-yours"


async def _first(peer: Peer) -> Event:
    """The first event, which is the greeting or a refusal."""
    found = await peer.until(lambda item: isinstance(item, dict), "an event")
    assert isinstance(found, dict)
    return found


async def _refused(peer: Peer, code: str, close: int, otherwise: str) -> Event:
    """The body of the error. Raises CheckSkippedError with `otherwise` when nothing is refused."""
    event = await _first(peer)
    if event["type"] == "session.created":
        raise CheckSkippedError(otherwise)
    body = event["error"] if event["type"] == "error" else {}
    require(body.get("code") == code, f"error {code} was to come, not {event}")
    seen = await peer.end()
    require(seen == close, f"the close code is {seen}, not {close}")
    assert isinstance(body, dict)
    return body


async def without_key(target: Target) -> None:
    async with connected(target, token="") as peer:
        await _refused(peer, "missing_token", 4401, "the server asks for no key")


async def with_wrong_key(target: Target) -> None:
    async with connected(target, token=WRONG_TOKEN) as peer:
        await _refused(peer, "invalid_token", 4401, "the server asks for no key")


async def from_elsewhere(target: Target) -> None:
    async with connected(target, origin=STRANGE_ORIGIN) as peer:
        await _refused(peer, "origin_not_allowed", 4403, "the server serves pages of all origins")


async def loading(target: Target) -> None:
    async with connected(target) as peer:
        body = await _refused(peer, "model_loading", 4503, "the model is loaded")
        require(body.get("retryable") is True, f"that it may work later is not said: {body}")


CHECKS = (
    Check("access.missing", ERROR_SECTION, "without a key: told, then 4401", without_key),
    Check("access.invalid", ERROR_SECTION, "with a wrong key: told, then 4401", with_wrong_key),
    Check("access.origin", ERROR_SECTION, "a strange page: told, then 4403", from_elsewhere),
    Check(
        "access.loading",
        ERROR_SECTION,
        "before the model is there: told, then 4503",
        loading,
        while_loading=True,
    ),
)
