"""A server with one fault: the real one behind a proxy that changes what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from live_server import LiveServer
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from visavis.server.conformance.address import socket_url
from visavis.server.protocol import SUBPROTOCOL

Message = str | bytes
Alter = Callable[[Message], list[Message]]
# What is selected of the subprotocols that were offered.
Select = Callable[[Sequence[Subprotocol]], Subprotocol | None]


def offered(headers: list[str]) -> list[Subprotocol]:
    """Names in Sec-WebSocket-Protocol headers."""
    return [Subprotocol(name.strip()) for line in headers for name in line.split(",")]


def the_protocols_own(names: Sequence[Subprotocol]) -> Subprotocol | None:
    """As the protocol wants it."""
    return next((name for name in names if name == SUBPROTOCOL), None)


@asynccontextmanager
async def faulty(
    server: LiveServer,
    alter: Alter,
    *,
    close_code: int | None = None,
    select: Select = the_protocols_own,
    compression: str | None = None,
) -> AsyncIterator[str]:
    """The same server behind a proxy that changes what it says; yields its address."""

    async def pass_on(client: ServerConnection) -> None:
        assert client.request is not None
        given = client.request.headers
        passed = {name: given[name] for name in ("Authorization", "Origin") if name in given}
        async with connect(
            socket_url(server.ws),
            subprotocols=offered(given.get_all("Sec-WebSocket-Protocol")),
            additional_headers=passed,
            compression=None,
            max_size=None,
            # Nobody reads what still comes when the check has gone.
            close_timeout=0.5,
        ) as upstream:

            async def end_upstream() -> None:
                if client.close_code == 1006:
                    # A lost connection is none that was closed: the session may be resumed.
                    upstream.transport.abort()
                else:
                    await upstream.close()

            async def up() -> None:
                # A check that failed closes with an error, which is an end as well.
                with contextlib.suppress(ConnectionClosed):
                    async for message in client:
                        await upstream.send(message)
                await end_upstream()

            sending = asyncio.create_task(up())
            with contextlib.suppress(ConnectionClosed):
                async for message in upstream:
                    for altered in alter(message):
                        await client.send(altered)
            code = upstream.close_code or 1006
            await client.close(close_code or (1011 if code == 1006 else code))
            sending.cancel()
            await end_upstream()

    async with serve(
        pass_on,
        "127.0.0.1",
        0,
        select_subprotocol=lambda _, names: select(names),
        compression=compression,
        max_size=None,
    ) as proxy:
        yield f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


def on_event(kind: str, change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Alter:
    def alter(message: Message) -> list[Message]:
        if isinstance(message, bytes):
            return [message]
        event = json.loads(message)
        return [json.dumps(e) for e in change(event)] if event["type"] == kind else [message]

    return alter


def on_media(change: Callable[[bytearray], None]) -> Alter:
    def alter(message: Message) -> list[Message]:
        if isinstance(message, str):
            return [message]
        changed = bytearray(message)
        change(changed)
        return [bytes(changed)]

    return alter


def without(name: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    def change(event: dict[str, Any]) -> list[dict[str, Any]]:
        event.get("error", event).pop(name, None)
        return [event]

    return change


@asynccontextmanager
async def refusing(error: dict[str, Any], close_code: int) -> AsyncIterator[str]:
    """A server that says nothing but an error, and closes; yields its address."""

    async def refuse(client: ServerConnection) -> None:
        await client.send(json.dumps({"type": "error", "event_id": "e", "error": error}))
        await client.close(close_code)

    async with serve(
        refuse, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
