"""Checks of connecting and configuring."""

from __future__ import annotations

import base64
from typing import TypeVar

import msgspec

from visavis.server import events as ev
from visavis.server.conformance.model import Check, CheckFailedError, CheckSkippedError, require
from visavis.server.conformance.peer import Event, Target, connected, session
from visavis.server.protocol import PROTOCOL_VERSION, SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX

CONNECTING = "Connecting"
EVENTS = "Client events"
E = TypeVar("E", ev.SessionCreated, ev.SessionUpdated)


async def subprotocol(target: Target) -> None:
    async with connected(target, subprotocols=("avatar.v999", SUBPROTOCOL)) as peer:
        chosen = peer.socket.subprotocol
        require(chosen == SUBPROTOCOL, f"the server selected {chosen!r}")


async def token_not_echoed(target: Target) -> None:
    names = (SUBPROTOCOL, f"{TOKEN_SUBPROTOCOL_PREFIX}conformance")
    async with connected(target, subprotocols=names) as peer:
        chosen = peer.socket.subprotocol
        require(chosen == SUBPROTOCOL, f"the server selected {chosen!r}")


async def no_compression(target: Target) -> None:
    async with connected(target, compression="deflate") as peer:
        extensions = peer.socket.protocol.extensions
        require(not extensions, f"the server negotiated {extensions}")


async def greeting(target: Target) -> None:
    async with connected(target) as peer:
        created = await peer.event("session.created")
        require(peer.log[0] is created, f"the first message was {peer.log[0]}")
        event = _valid(created, ev.SessionCreated)
        require(event.protocol == PROTOCOL_VERSION, f"protocol is {event.protocol}")
        limits = msgspec.to_builtins(event.limits)
        wrong = {name: value for name, value in limits.items() if value <= 0}
        require(not wrong, f"limits must be positive: {wrong}")


def _valid(event: Event, kind: type[E]) -> E:
    """The event with all its fields. Raises CheckFailedError when one is missing or wrong."""
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise CheckFailedError(f"{event['type']}: {error}") from None


async def configured_first(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        await peer.send("input_audio_buffer.commit", event_id="early")
        body = await peer.error("session_not_configured")
        require(body.get("event_id") == "early", f"error.event_id is {body.get('event_id')!r}")
        await peer.configure()


async def effective_settings(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        updated = await peer.configure(seed=7, idle="freeze")
        effective = _valid(updated, ev.SessionUpdated).session
        require(effective.avatar_id == target.avatar_id, f"avatar_id is {effective.avatar_id!r}")
        require(effective.seed == 7, f"seed is {effective.seed}")
        require(effective.idle == "freeze", f"idle is {effective.idle}")
        output = effective.output
        require(output.video == "jpeg", f"output.video is {output.video!r}")
        require(output.width > 0 < output.height, f"the size is {output.width}x{output.height}")
        require(output.audio_rate == 16_000, f"output.audio_rate is {output.audio_rate}")


async def loading(target: Target) -> None:
    async with session(target) as peer:
        told = peer.of_type("session.loading")
        require(told, "no session.loading came before session.updated")
        require(all(e["stage"] == "avatar" for e in told), f"a stage is not avatar: {told}")
        progress = [e["progress"] for e in told]
        require(
            progress == sorted(progress) and progress[0] >= 0 and progress[-1] <= 1,
            f"progress goes {progress}, not upwards between 0 and 1",
        )


async def wrong_image(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        picture = base64.b64encode(b"this is no picture").decode()
        settings = {"image": picture, "consent": True}
        await peer.send("session.update", event_id="image", session=settings)
        body = (await peer.event("error"))["error"]
        if body.get("code") == "not_permitted":
            raise CheckSkippedError("this key may bring no pictures")
        require(body.get("code") == "invalid_image", f"error invalid_image was to come, not {body}")
        require(body.get("event_id") == "image", f"error.event_id is {body.get('event_id')!r}")
        await peer.configure()


async def unknown_avatar(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        await peer.send("session.update", session={"avatar_id": "no-such-avatar-0"})
        await peer.error("avatar_not_found")
        code = await peer.end()
        require(code == 4404, f"the close code is {code}")


async def wrong_rate(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        settings = {"avatar_id": target.avatar_id, "input_audio": {"rate": 4000}}
        await peer.send("session.update", session=settings)
        body = await peer.error("invalid_sample_rate")
        param = body.get("param")
        require(param == "session.input_audio.rate", f"error.param is {param!r}")
        await peer.configure()


async def immutable(target: Target) -> None:
    async with session(target) as peer:
        settings = {"input_audio": {"format": "pcm16", "rate": 24_000}}
        await peer.send("session.update", session=settings)
        await peer.error("immutable_field")
        await peer.alive()


async def mutable(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("session.update", event_id="later", session={"idle": "freeze"})
        updated = await peer.reply("session.updated", "later")
        idle = updated["session"]["idle"]
        require(idle == "freeze", f"idle is {idle!r} after the change")


async def unsupported(target: Target) -> None:
    async with connected(target, subprotocols=("avatar.v999",)) as peer:
        await peer.error("unsupported_protocol")
        code = await peer.end()
        require(code == 4400, f"the close code is {code}")


async def close(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("session.close")
        code = await peer.end()
        require(code == 1000, f"the close code is {code}")


async def silent_client(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        await peer.error("session_update_timeout")
        code = await peer.end()
        require(code == 4400, f"the close code is {code}")


CHECKS = (
    Check("handshake.subprotocol", CONNECTING, "avatar.v1 is selected", subprotocol),
    Check("handshake.unsupported", "Errors", "without avatar.v1: told, then 4400", unsupported),
    Check("handshake.token", CONNECTING, "a token is never selected", token_not_echoed),
    Check("handshake.compression", CONNECTING, "compression is off", no_compression),
    Check("handshake.greeting", CONNECTING, "session.created comes first, whole", greeting),
    Check(
        "handshake.order",
        CONNECTING,
        "what comes before session.update is refused",
        configured_first,
    ),
    Check(
        "handshake.timeout",
        CONNECTING,
        "a client that says nothing is told and closed with 4400",
        silent_client,
        slow=True,
    ),
    Check("session.effective", EVENTS, "session.updated says what is in force", effective_settings),
    Check("session.loading", CONNECTING, "session.loading tells of progress", loading),
    Check(
        "session.image", "Errors", "what is no picture is refused and can be mended", wrong_image
    ),
    Check("session.unknown_avatar", "Errors", "avatar_not_found closes with 4404", unknown_avatar),
    Check("session.rate", "Errors", "a wrong rate is named and can be mended", wrong_rate),
    Check("session.immutable", EVENTS, "what may not change is refused", immutable),
    Check("session.mutable", EVENTS, "idle may change", mutable),
    Check("session.close", EVENTS, "session.close is answered by 1000", close),
)
