"""A client that takes nothing for granted: it keeps everything that comes, in order."""

from __future__ import annotations

import array
import asyncio
import json
import math
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from visavis.server import protocol
from visavis.server.conformance.model import CheckFailedError, require
from visavis.server.protocol import Flag, Header, Kind

Event = dict[str, Any]
RATE = 16_000
FRAMES = (Kind.MEDIA, Kind.FMP4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the server is, and what the checks may use there.

    url: of the socket. avatar_id: one that exists. token: a key or client token. timeout_s: for
    every answer.
    """

    url: str
    avatar_id: str
    token: str | None = None
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Media:
    """One binary message, taken apart."""

    header: Header
    audio: bytes
    video: bytes

    @property
    def idle(self) -> bool:
        return Flag.IDLE in self.header.flags


@dataclass
class Peer:
    """One connection."""

    target: Target
    socket: ClientConnection
    log: list[Event | Media] = field(default_factory=list)
    close_code: int | None = None
    acknowledges: bool = False
    fps: float = 25.0

    @property
    def events(self) -> list[Event]:
        return [item for item in self.log if isinstance(item, dict)]

    @property
    def media(self) -> list[Media]:
        return [item for item in self.log if isinstance(item, Media)]

    def of_type(self, kind: str) -> list[Event]:
        """Events of one type, so far."""
        return [event for event in self.events if event["type"] == kind]

    async def send(self, kind: str, **fields: Any) -> None:
        """One JSON event."""
        await self.send_text(json.dumps({"type": kind, **fields}))

    async def send_text(self, text: str) -> None:
        """A text message as it is."""
        await self._send(text)

    async def send_binary(self, data: bytes) -> None:
        """A binary message as it is."""
        await self._send(data)

    async def _send(self, message: str | bytes) -> None:
        try:
            await self.socket.send(message)
        except ConnectionClosed:
            self._closed()

    async def speak(self, pcm: bytes, *, commit: bool = True, piece: int = 32_000) -> None:
        """AUDIO_IN messages, as fast as they go."""
        for seq, start in enumerate(range(0, len(pcm), piece)):
            await self.send_binary(audio_in(pcm[start : start + piece], seq))
        if commit:
            await self.send("input_audio_buffer.commit")

    async def read(self) -> Event | Media | None:
        """The next message; None at the end. Raises CheckFailedError for one that is damaged."""
        try:
            message = await self.socket.recv()
        except ConnectionClosed:
            self._closed()
            return None
        item = parse(message)
        self.log.append(item)
        if isinstance(item, Media) and self.acknowledges and item.header.kind in FRAMES:
            await self.send("playback.update", pts_us=item.header.pts_us, seq=item.header.seq)
        return item

    def _closed(self) -> None:
        self.close_code = self.socket.close_code or 1006

    async def until(
        self,
        accept: Callable[[Event | Media], bool],
        what: str,
        timeout_s: float | None = None,
    ) -> Event | Media:
        """Read up to a message, for `timeout_s` or the target's.

        Raises CheckFailedError when it does not come.
        """
        limit_s = self.target.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                while (item := await self.read()) is not None:
                    if accept(item):
                        return item
        except TimeoutError:
            raise CheckFailedError(
                f"{what} did not come within {limit_s:g} s; {self._seen()}"
            ) from None
        raise CheckFailedError(
            f"the socket was closed ({self.close_code}) before {what} came; {self._seen()}"
        )

    def _seen(self) -> str:
        kinds = [e["type"] for e in self.events[-4:]]
        errors = [e["error"].get("code") for e in self.of_type("error")[-2:]]
        return f"last events: {kinds}, errors: {errors}, {len(self.media)} media messages"

    async def event(self, kind: str, timeout_s: float | None = None) -> Event:
        """Read up to the next event of that type."""
        found = await self.until(
            lambda i: isinstance(i, dict) and i["type"] == kind, kind, timeout_s
        )
        assert isinstance(found, dict)
        return found

    async def reply(self, kind: str, event_id: str) -> Event:
        """Read up to the answer to `event_id`, which must be of that type or an error."""
        found = await self.until(
            lambda i: (
                isinstance(i, dict)
                and (i.get("source_event_id") == event_id or _error_id(i) == event_id)
            ),
            f"the answer to {event_id!r}",
        )
        assert isinstance(found, dict)
        require(found["type"] == kind, f"{kind} was to answer, not {json.dumps(found)[:300]}")
        return found

    async def error(self, code: str) -> Event:
        """Read up to the next error, which must have that code."""
        body = (await self.event("error"))["error"]
        require(body.get("code") == code, f"error {code} was to come, not {body}")
        assert isinstance(body, dict)
        return body

    async def frame(self, accept: Callable[[Media], bool], what: str) -> Media:
        """Read up to a media message."""
        found = await self.until(lambda i: isinstance(i, Media) and accept(i), what)
        assert isinstance(found, Media)
        return found

    async def end(self, timeout_s: float | None = None) -> int:
        """Read to the end, for `timeout_s` or the target's; returns the close code."""
        limit_s = self.target.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                while await self.read() is not None:
                    pass
        except TimeoutError:
            raise CheckFailedError(
                f"the server did not close within {limit_s:g} s; {self._seen()}"
            ) from None
        return self.close_code or 1006

    async def alive(self) -> None:
        """The session answers a ping, and said no error meanwhile."""
        before = len(self.of_type("error"))
        await self.send("session.ping", event_id="alive", t=1)
        await self.reply("session.pong", "alive")
        errors = self.of_type("error")[before:]
        require(not errors, f"no error was to come: {errors}")

    async def configure(self, **session: Any) -> Event:
        """session.update, and its answer."""
        settings = {
            "avatar_id": self.target.avatar_id,
            "input_audio": {"format": "pcm16", "rate": RATE},
            "output": {"video": "jpeg", "audio": "pcm16"},
        } | session
        await self.send("session.update", event_id="configure", session=settings)
        updated = await self.reply("session.updated", "configure")
        self.fps = float(updated["session"]["output"]["fps"])
        return updated

    def drop(self) -> None:
        """Lose the connection: no close frame is sent."""
        self.socket.transport.abort()


def _error_id(event: Event) -> str | None:
    error = event.get("error")
    return error.get("event_id") if isinstance(error, dict) else None


def parse(message: str | bytes) -> Event | Media:
    """One message. Raises CheckFailedError for one that is not of the protocol."""
    if isinstance(message, str):
        try:
            event = json.loads(message)
        except ValueError:
            raise CheckFailedError(f"a text message is no JSON: {message[:80]!r}") from None
        named = isinstance(event, dict) and isinstance(event.get("type"), str)
        require(named, f"a text message has no type: {message[:80]!r}")
        assert isinstance(event, dict)
        return event
    try:
        frame = protocol.decode_frame(message)
    except ValueError as error:
        raise CheckFailedError(f"a binary message is damaged: {error}") from None
    return Media(frame.header, frame.audio, frame.video)


def audio_in(pcm: bytes, seq: int = 0) -> bytes:
    """An AUDIO_IN message."""
    header = Header(kind=Kind.AUDIO_IN, seq=seq, audio_len=len(pcm))
    return protocol.encode_frame(header, pcm, b"")


def noise(seconds: float, seed: int = 1) -> bytes:
    """pcm16 in which every sample counts, like a voice in loudness and no other respect."""
    generator = random.Random(seed)  # a sound, no secret
    count = math.ceil(seconds * RATE)
    samples = array.array("h", (_clipped(generator.gauss(0, 3_000)) for _ in range(count)))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def _clipped(sample: float) -> int:
    return round(max(-20_000.0, min(20_000.0, sample)))


@asynccontextmanager
async def connected(
    target: Target,
    *,
    subprotocols: Sequence[str] = (protocol.SUBPROTOCOL,),
    compression: str | None = None,
    token: str | None = None,
    origin: str | None = None,
) -> AsyncIterator[Peer]:
    """A connection; the greeting is not read yet. `token`: instead of the target's; "" for none."""
    secret = target.token if token is None else token
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        async with connect(
            target.url,
            subprotocols=[Subprotocol(name) for name in subprotocols],
            additional_headers=headers,
            origin=None if origin is None else Origin(origin),
            compression=compression,
            max_size=None,
            open_timeout=target.timeout_s,
            close_timeout=2.0,
        ) as socket:
            yield Peer(target, socket)
    except OSError as error:
        raise CheckFailedError(f"no connection to {target.url}: {error}") from error


@asynccontextmanager
async def session(target: Target, **settings: Any) -> AsyncIterator[Peer]:
    """A connection with a session whose settings are in force."""
    async with connected(target) as peer:
        await peer.event("session.created")
        await peer.configure(**settings)
        yield peer
