"""Whole sessions without a network: sockets of the test's own, the engine of virtual_engine.py, and
one clock for everything in the server, which runs as fast as the test."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect
from virtual_engine import CALM, RATE, VirtualEngine, VirtualLoop

from visavis.engine.idle import IdleLoop
from visavis.engine.session import AvatarSession
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.events import Features, OutputMedia
from visavis.server.metrics import Metrics
from visavis.server.output_choice import output_offer
from visavis.server.picture_stream import PictureStream
from visavis.server.resume import ResumeDesk
from visavis.server.session import RealtimeSession
from visavis.server.stream import EngineStream, IdleLoops

HEADER = struct.Struct("<BBHIQIIII")
TINY = (2, 2)
# What a turn of the event loop takes: a clock that stood still would never reach some deadlines.
TURN_S = 1e-6


class TickingLoop(VirtualLoop):
    """A virtual loop whose turns take a little time."""

    def __init__(self) -> None:
        super().__init__()
        jump = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            self.now_s += TURN_S
            return jump(timeout)

        self._selector.select = select  # type: ignore[attr-defined]


@contextmanager
def server_clock(loop: TickingLoop) -> Iterator[None]:
    """Let every module of the server read the loop's time."""
    clock = SimpleNamespace(
        monotonic=loop.time,
        monotonic_ns=lambda: int(1e9 * loop.time()),
        perf_counter=loop.time,
        time=loop.time,
    )
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("visavis.server.") and getattr(module, "time", None) is time
    ]
    for module in modules:
        module.time = clock  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.time = time  # type: ignore[attr-defined]


class SessionEngine(VirtualEngine):
    """All of a ModelHost that sessions use; pictures are 2x2 JPEGs."""

    features = Features(prompt=False, listening=True)
    max_queued = 0

    @property
    def max_sessions(self) -> int:
        return self.config.max_sessions or 1

    @property
    def output_offer(self) -> Any:
        return output_offer(TINY, 256)

    def check_computes(self) -> None:
        """It always does."""

    async def prepare_stored(self, avatar_id: str, *_: Any) -> Any:
        return SimpleNamespace(warnings=(), id=avatar_id)

    async def open_stream(
        self, avatar: Any, *, rate: int, seed: int, output: OutputMedia, state: Any = None
    ) -> tuple[EngineStream, str]:
        assert state is None
        pipeline: Any = self.pipeline
        session = AvatarSession(
            pipeline, avatar, input_rate=rate, seed=seed, num_steps=4, calm=CALM
        )
        pictures = PictureStream(output, TINY)
        loops = IdleLoops(idle=IdleLoop(12), listening=IdleLoop(12))
        return EngineStream(session, pictures, loops), pictures.codec


class FakeSocket:
    """Both ends of a socket: the server's, as Starlette has it, and the client's."""

    def __init__(self) -> None:
        self.to_server: list[dict[str, Any]] = []
        self.sent: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.lost = False
        self.was_blocked = False
        self.wrote_after_close = False
        self._arrived = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()

    # The server's end

    async def receive(self) -> dict[str, Any]:
        while not self.to_server:
            self._arrived.clear()
            await self._arrived.wait()
        return self.to_server.pop(0)

    async def send_text(self, data: str) -> None:
        await self._send(data)

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def _send(self, data: str | bytes) -> None:
        await self._reading.wait()
        if self.lost:
            raise WebSocketDisconnect(1006)
        if self.closed is not None:
            self.wrote_after_close = True
            raise RuntimeError("the socket is closed")
        self.sent.append(data)

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        if self.lost or self.closed is not None:
            raise RuntimeError("the socket is closed")
        self.closed = code, reason or ""
        self.was_blocked = not self._reading.is_set()
        self._deliver({"type": "websocket.disconnect", "code": code})

    # The client's end

    @property
    def open(self) -> bool:
        return self.closed is None and not self.lost

    def say(self, kind: str, **fields: Any) -> None:
        self._deliver({"type": "websocket.receive", "text": json.dumps({"type": kind, **fields})})

    def say_audio(self, seq: int, pcm: bytes) -> None:
        self.say_bytes(HEADER.pack(1, 0, 32, seq, 0, 0, 0, len(pcm), 0) + pcm)

    def say_bytes(self, data: bytes) -> None:
        self._deliver({"type": "websocket.receive", "bytes": data})

    def lose(self, code: int) -> None:
        """The connection breaks; what the server wrote and nobody read is gone."""
        self.lost = True
        self._reading.set()
        self._deliver({"type": "websocket.disconnect", "code": code})

    def stop_reading(self) -> None:
        self._reading.clear()

    def go_on_reading(self) -> None:
        self._reading.set()

    def _deliver(self, message: dict[str, Any]) -> None:
        self.to_server.append(message)
        self._arrived.set()


@dataclass
class Link:
    """One connection: its socket, what serves it, and how far the client has read."""

    socket: FakeSocket
    session: RealtimeSession
    task: asyncio.Task[str]
    read: int = 0

    @property
    def unread(self) -> list[str | bytes]:
        return self.socket.sent[self.read :]


@dataclass
class VirtualServer:
    """What an application owns, as far as sessions need it. Use `opened`."""

    loop: TickingLoop
    config: ServerConfig
    engine: SessionEngine
    admission: Admission
    desk: ResumeDesk
    metrics: Metrics
    links: list[Link] = field(default_factory=list)
    # Of everybody who connects.
    quota: Any = None

    def run(self, seconds: float = 0.0) -> None:
        """Let so much time pass. Raises what a session's task raised."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for link in self.links:
            if link.task.done():
                link.task.result()

    def connect(self) -> Link:
        """A new connection; the greeting comes with time."""
        return self.loop.run_until_complete(self._connect())

    async def _connect(self) -> Link:
        socket: Any = FakeSocket()
        host: Any = self.engine
        session = RealtimeSession(
            socket,
            host=host,
            admission=self.admission,
            config=self.config,
            metrics=self.metrics,
            desk=self.desk,
            quota=self.quota,
        )
        link = Link(socket, session, asyncio.create_task(session.run()))
        self.links.append(link)
        return link

    def drain(self, timeout_s: float) -> asyncio.Task[None]:
        """Stop as on SIGTERM."""
        return self.loop.create_task(self.admission.drain(timeout_s))


@contextmanager
def opened(**settings: Any) -> Iterator[VirtualServer]:
    """A server until the block ends."""
    loop = TickingLoop()
    asyncio.set_event_loop(loop)

    async def build() -> VirtualServer:
        engine = await SessionEngine(**settings).__aenter__()
        metrics = Metrics()
        host: Any = engine
        desk = ResumeDesk(engine.config, "a")
        admission = Admission(host, metrics)
        return VirtualServer(loop, engine.config, engine, admission, desk, metrics)

    with server_clock(loop):
        server = loop.run_until_complete(build())
        try:
            yield server
        finally:
            loop.run_until_complete(server.desk.close())
            tasks = [link.task for link in server.links if not link.task.done()]
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            ends = [live.end("over") for live in server.desk.sessions]
            loop.run_until_complete(asyncio.gather(*ends))
            loop.run_until_complete(server.engine.__aexit__())
            asyncio.set_event_loop(None)
            loop.close()


class Microphone:
    """Speech in which every sample says where it belongs: pairs of samples count from 0."""

    def __init__(self) -> None:
        self.pairs = 0

    def take(self, pairs: int) -> bytes:
        """The next pcm16: 2 * pairs samples."""
        first = self.pairs
        self.pairs += pairs
        return np.arange(first, self.pairs, dtype="<u4").tobytes()


def pairs_of(pcm: bytes) -> list[int]:
    """The numbers of the pairs in a piece of what a Microphone gave."""
    return np.frombuffer(pcm, dtype="<u4").tolist()


__all__ = ["HEADER", "RATE", "Link", "Microphone", "VirtualServer", "opened", "pairs_of"]
