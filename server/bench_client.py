"""A minimal client for the load tools: no queues, no checks, exact arrival times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from visavis.server.conformance import address
from visavis.server.conversation import FRAME_US
from visavis.server.protocol import (
    SUBPROTOCOL,
    Flag,
    Frame,
    Header,
    Kind,
    decode_frame,
    encode_frame,
)

OPEN_TIMEOUT_S = 30.0
Event = dict[str, Any]


class BenchError(ValueError):
    """The server refused, or went away; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and when it came, on the monotonic clock."""

    time_s: float
    size: int
    item: Event | Frame


class BenchClient:
    """One socket; sending and `arrivals` may run in two tasks.

    size: of its pictures. handle: how to come back, None when the server does not offer it.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.size = ""
        self.handle: str | None = None
        self._socket = socket
        self._seq = 0

    async def send(self, kind: str, **fields: Any) -> None:
        """A JSON event."""
        await self._send(json.dumps({"type": kind, **fields}))

    async def send_audio(self, pcm: bytes) -> None:
        """One AUDIO_IN message."""
        header = Header(kind=Kind.AUDIO_IN, seq=self._seq, audio_len=len(pcm))
        self._seq += 1
        await self._send(encode_frame(header, pcm, b""))

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise BenchError(f"the server closed the socket: {error}") from error

    def drop(self) -> None:
        """Lose the connection, as a network does: no word is said."""
        self._socket.transport.abort()

    async def arrivals(self) -> AsyncIterator[Arrival]:
        """All messages until the socket is closed. Raises BenchError for an error event."""
        try:
            async for message in self._socket:
                now_s = time.monotonic()
                if isinstance(message, bytes):
                    yield Arrival(now_s, len(message), decode_frame(message))
                    continue
                event: Event = json.loads(message)
                if event["type"] == "error":
                    raise BenchError(f"{event['error']['code']}: {event['error']['message']}")
                yield Arrival(now_s, len(message), event)
        except ConnectionClosed as error:
            raise BenchError(f"the server closed the socket: {error}") from error

    async def until(self, kind: str) -> Event:
        """The next event of that type. Raises BenchError at the end, and when told to queue."""
        async for arrival in self.arrivals():
            item = arrival.item
            if isinstance(item, dict) and item["type"] == kind:
                return item
            if isinstance(item, dict) and item["type"] == "session.queued":
                raise BenchError(f"capacity: all places are taken, {item['position']} in the queue")
        raise BenchError(f"the server closed the socket before {kind}")


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[BenchClient]:
    """A client that was greeted. Raises BenchError when the server refuses, or is not there."""
    try:
        socket = await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
            open_timeout=OPEN_TIMEOUT_S,
        )
    except (OSError, TimeoutError) as error:
        raise BenchError(f"{url} cannot be reached ({error}); start `visavis serve`") from error
    async with socket:
        client = BenchClient(socket)
        created = await _answer(client, "session.created")
        client.handle = (created.get("resume") or {}).get("handle")
        yield client


async def _answer(client: BenchClient, kind: str) -> Event:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await client.until(kind)
    except TimeoutError:
        raise BenchError(f"no {kind} within {OPEN_TIMEOUT_S:g} s") from None


@asynccontextmanager
async def open_client(
    url: str,
    *,
    avatar: str,
    rate: int,
    video: str,
    height: int | None = None,
    on_disconnect: str = "end",
) -> AsyncIterator[BenchClient]:
    """A configured session; `height` of its pictures, None for the server's own.

    Raises BenchError when the server refuses, or is not there.
    """
    async with _connected(url) as client:
        settings = {
            "avatar_id": avatar,
            "input_audio": {"format": "pcm16", "rate": rate},
            "output": {"video": video} | ({} if height is None else {"height": height}),
            "on_disconnect": on_disconnect,
        }
        await client.send("session.update", session=settings)
        output = (await _answer(client, "session.updated"))["session"]["output"]
        client.size = f"{output['width']}x{output['height']}"
        yield client


@asynccontextmanager
async def resume_client(
    url: str, handle: str, *, last_seq: int | None, last_event_id: str | None
) -> AsyncIterator[tuple[BenchClient, Event]]:
    """The session of `handle` on a new socket, and its session.resumed.

    Raises BenchError when the server refuses, or is not there.
    """
    async with _connected(url) as client:
        asked = {"handle": handle, "last_seq": last_seq, "last_event_id": last_event_id}
        await client.send("session.resume", **{k: v for k, v in asked.items() if v is not None})
        resumed = await _answer(client, "session.resumed")
        client.handle = resumed["resume"]["handle"]
        yield client, resumed


def socket_url(url: str) -> str:
    """The address of the socket, as `address.socket_url` has it. Raises BenchError."""
    try:
        return address.socket_url(url)
    except ValueError as error:
        raise BenchError(str(error)) from error


def first_avatar(url: str, token: str | None = None, timeout_s: float = OPEN_TIMEOUT_S) -> str:
    """The id of the server's first avatar. Raises BenchError when it tells of none."""
    try:
        return address.first_avatar(socket_url(url), token, timeout_s)
    except ValueError as error:
        raise BenchError(str(error)) from error


def is_speech(frame: Frame) -> bool:
    """Whether this is a MEDIA frame in which the avatar speaks."""
    return frame.header.kind == Kind.MEDIA and not frame.header.flags & Flag.IDLE


def rss_mib(pid: int) -> float | None:
    """Memory of a process on this machine in MiB, None when it cannot be read."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize() / (1 << 20)


FRAME_S = FRAME_US / 1e6
