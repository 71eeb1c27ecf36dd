"""A real server on a free port in a thread, and a small client that speaks the protocol by hand."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from websockets.asyncio.client import ClientConnection, connect

from visavis.server.app import create_app
from visavis.server.config import ServerConfig
from visavis.server.model_host import EngineLoader, load_engine
from visavis.server.serving import DrainingServer, uvicorn_config

HEADER = struct.Struct("<BBHIQIIII")
GALLERY_ID = "drawn"


def drawn_face(side: int = 512) -> Image.Image:
    """A face of ellipses that the detector accepts."""
    image = Image.new("RGB", (512, 512), (180, 200, 220))
    draw = ImageDraw.Draw(image)
    draw.pieslice((116, 40, 396, 330), 180, 360, fill=(70, 45, 30))
    draw.ellipse((136, 110, 376, 450), fill=(235, 195, 165))
    for x in (200, 312):
        draw.ellipse((x - 28, 215, x + 28, 245), fill=(255, 255, 255))
        draw.ellipse((x - 13, 217, x + 13, 243), fill=(60, 40, 30))
        draw.arc((x - 38, 185, x + 38, 225), 200, 340, fill=(60, 40, 30), width=8)
    draw.polygon([(256, 235), (236, 310), (276, 310)], fill=(215, 170, 140))
    draw.ellipse((211, 350, 301, 385), fill=(190, 80, 80))
    draw.line((214, 367, 298, 367), fill=(120, 40, 40), width=4)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, image_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def noise(samples: int, seed: int = 0) -> bytes:
    """pcm16 in which every sample counts."""
    generator = np.random.default_rng(seed)
    return generator.integers(-8000, 8000, samples, dtype=np.int16).astype("<i2").tobytes()


def make_config(folder: Path, **settings: Any) -> ServerConfig:
    """Settings with a data folder and a gallery of one under `folder`."""
    gallery = folder / "gallery"
    gallery.mkdir(parents=True, exist_ok=True)
    (gallery / "drawn.jpg").write_bytes(encoded(drawn_face()))
    entries = [{"id": GALLERY_ID, "name": "Drawn", "file": "drawn.jpg"}]
    (gallery / "index.json").write_text(json.dumps(entries))
    defaults: dict[str, Any] = {
        "data_dir": folder / "data",
        "gallery_dir": gallery,
        "web_dir": folder / "no-page",
        "max_sessions": 8,
        "drain_timeout_s": 5.0,
        # A machine that is busy with tests must not make pictures smaller.
        "degrade": ("steps",),
    }
    return ServerConfig(**(defaults | settings))


@dataclass
class LiveServer:
    """A running server; `http` and `ws` are its addresses without a path."""

    config: ServerConfig
    server: DrainingServer
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextmanager
def running(
    config: ServerConfig, load: EngineLoader = load_engine, *, loaded: bool = True
) -> Iterator[LiveServer]:
    """Run a server until the block ends; unless told otherwise, the model is loaded when the block
    begins."""
    app = create_app(config, load=load)
    server = DrainingServer(uvicorn_config(app, config), app.state.server)
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(server.serve(sockets=[listener]))
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    host = app.state.server.host
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if server.started and not (loaded and host.state == "loading"):
            break
        time.sleep(0.01)
    try:
        assert host.state == "ready" or not loaded, host.load_error
        yield LiveServer(config, server, listener.getsockname()[1], loop)
    finally:
        server.should_exit = True
        thread.join(30)


@dataclass
class Media:
    """One MEDIA message."""

    flags: int
    seq: int
    pts_us: int
    epoch: int
    response: int
    audio: bytes
    video: bytes

    @property
    def idle(self) -> bool:
        return bool(self.flags & 8)


@dataclass
class Client:
    """Reads everything that comes and keeps it, in order."""

    socket: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    log: list[dict[str, Any] | Media] = field(default_factory=list)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def send_audio(self, pcm: bytes, piece: int = 32_000) -> None:
        for seq, start in enumerate(range(0, len(pcm), piece)):
            part = pcm[start : start + piece]
            await self.socket.send(HEADER.pack(1, 0, 32, seq, 0, 0, 0, len(part), 0) + part)

    async def read(self) -> dict[str, Any] | Media:
        """The next message. Raises ConnectionClosed at the end."""
        message = await self.socket.recv()
        item: dict[str, Any] | Media
        if isinstance(message, str):
            item = json.loads(message)
            self.events.append(item)
        else:
            kind, flags, header_len, seq, pts, epoch, response, audio_len, video_len = (
                HEADER.unpack_from(message)
            )
            assert (kind, header_len) == (2, 32)
            assert len(message) == 32 + audio_len + video_len
            audio, video = message[32 : 32 + audio_len], message[32 + audio_len :]
            item = Media(flags, seq, pts, epoch, response, audio, video)
            self.media.append(item)
        self.log.append(item)
        return item

    async def until(self, kind: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Read up to the next event of that type."""
        async with asyncio.timeout(timeout_s):
            while True:
                item = await self.read()
                if isinstance(item, dict) and item["type"] == kind:
                    return item

    async def until_media(self, *, speech: bool, timeout_s: float = 30.0) -> Media:
        """Read up to the next frame of speech, or of idling."""
        async with asyncio.timeout(timeout_s):
            while True:
                item = await self.read()
                if isinstance(item, Media) and item.idle != speech:
                    return item

    async def configure(self, **session: Any) -> dict[str, Any]:
        """Send session.update for the gallery avatar (unless told otherwise) and await it."""
        if "image" not in session:
            session.setdefault("avatar_id", GALLERY_ID)
        session.setdefault("output", {"video": "jpeg"})
        await self.send("session.update", session=session)
        return await self.until("session.updated")

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def speech(self, response: int | None = None) -> list[Media]:
        frames = [frame for frame in self.media if not frame.idle]
        return [f for f in frames if response is None or f.response == response]


@asynccontextmanager
async def client_of(server: LiveServer) -> AsyncIterator[Client]:
    """A connected client."""
    async with connect(
        f"{server.ws}/v1/realtime/avatar",
        subprotocols=["avatar.v1"],  # type: ignore[list-item]
        compression=None,
        max_size=None,
    ) as connection:
        yield Client(connection)
