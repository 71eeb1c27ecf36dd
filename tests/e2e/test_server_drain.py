"""SIGTERM to a real server process, in the middle of a word: nothing is cut, everything is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import GALLERY_ID, Client, client_of, make_config, noise, running
from stand_in import load_painting_engine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

HERE = Path(__file__).parent
SECONDS = 4.0
# The server of `visavis serve` with the painting engine of these tests instead of a trained one.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from stand_in import load_painting_engine
from visavis.server.app import create_app
from visavis.server.config import ServerConfig
from visavis.server.logging import configure_logging
from visavis.server.serving import DrainingServer, uvicorn_config
config = ServerConfig()
configure_logging("json", "info")
app = create_app(config, load=load_painting_engine)
DrainingServer(uvicorn_config(app, config), app.state.server).run()
"""


@dataclass
class Process:
    child: subprocess.Popen[bytes]
    port: int
    admin_port: int

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime/avatar"

    def status(self, path: str) -> int:
        """Of the administration's port, which is the last to close; 0 when it is gone."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10).status_code
        except httpx.TransportError:
            return 0

    async def until(self, path: str, status: int) -> None:
        async with asyncio.timeout(120):
            while await asyncio.to_thread(self.status, path) != status:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.child.wait, 30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def process(folder: Path, **settings: Any) -> Iterator[Process]:
    config = make_config(folder)
    port, admin_port = free_port(), free_port()
    environment = dict(os.environ) | {
        "VISAVIS_PORT": str(port),
        "VISAVIS_ADMIN_PORT": str(admin_port),
        "VISAVIS_DATA_DIR": str(config.data_dir),
        "VISAVIS_GALLERY_DIR": str(config.gallery_dir),
        "VISAVIS_WEB_DIR": str(config.web_dir),
        "VISAVIS_MAX_SESSIONS": "8",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {f"VISAVIS_{name.upper()}": str(value) for name, value in settings.items()}
    log = (folder / "log").open("wb")
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(HERE)], env=environment, stderr=log, stdout=log
    )
    try:
        yield Process(child, port, admin_port)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(30)
        log.close()


async def read_to_the_end(client: Client) -> tuple[int | None, str | None]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.read()
    return client.socket.close_code, client.socket.close_reason


@pytest.fixture
def pcm() -> bytes:
    return noise(round(16_000 * SECONDS))


async def speaking(client: Client, pcm: bytes) -> None:
    await client.configure(avatar_id=GALLERY_ID)
    await client.send_audio(pcm)
    await client.send("input_audio_buffer.commit")
    await client.until_media(speech=True)


async def test_sigterm_mid_speech_cuts_nothing(tmp_path: Path, pcm: bytes) -> None:
    with process(tmp_path, drain_timeout_s=20, drain_notice_s=0.5) as server:
        await server.until("/health/ready", 200)
        async with connect(server.ws, compression=None) as first:
            client = Client(first)
            await speaking(client, pcm)
            server.child.send_signal(signal.SIGTERM)
            # Readiness goes first, while the server still takes who was on the way.
            await server.until("/health/ready", 503)
            assert await asyncio.to_thread(server.status, "/health/live") == 200
            expiring = await client.until("session.expiring")
            async with connect(server.ws, compression=None) as late:
                latecomer = Client(late)
                assert await read_to_the_end(latecomer) == (1012, "server_draining")
                (refused,) = latecomer.of_type("error")
                assert refused["error"]["retryable"]
            closed = await read_to_the_end(client)
        assert await server.ended() == 0
    assert (expiring["reason"], expiring["deadline_s"]) == ("server_draining", 20)
    assert b"".join(frame.audio for frame in client.speech()) == pcm
    assert len(client.speech()) == round(25 * SECONDS)
    (done,) = client.of_type("response.done")
    assert done["status"] == "completed"
    assert closed == (1012, "server_draining")


async def test_a_second_sigterm_ends_now_and_says_so(tmp_path: Path) -> None:
    with process(tmp_path, drain_timeout_s=60) as server:
        await server.until("/health/ready", 200)
        async with connect(server.ws, compression=None) as connection:
            client = Client(connection)
            await speaking(client, noise(16_000 * 20))
            server.child.send_signal(signal.SIGTERM)
            await client.until("session.expiring")
            start = time.monotonic()
            server.child.send_signal(signal.SIGTERM)
            closed = await read_to_the_end(client)
        assert await server.ended() == 0
        assert time.monotonic() - start < 15
    assert closed == (1012, "server_draining")
    (done,) = client.of_type("response.done")
    assert done["status"] == "cancelled"


async def test_what_outlasts_the_deadline_is_cancelled_with_notice(tmp_path: Path) -> None:
    config = make_config(tmp_path, drain_timeout_s=1.0)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as client:
            await speaking(client, noise(16_000 * 20))
            server.loop.call_soon_threadsafe(server.server.begin_drain)
            closed = await read_to_the_end(client)
    assert closed == (1012, "server_draining")
    (expiring,) = client.of_type("session.expiring")
    assert expiring["deadline_s"] == 1
    (done,) = client.of_type("response.done")
    assert done["status"] == "cancelled"
