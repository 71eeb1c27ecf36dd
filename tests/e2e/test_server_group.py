"""`visavis serve --processes 3`: followers killed and stopped under live sessions, then the leader.

One server for all of it, in the order of the file: a start costs more than the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import Client, make_config, noise
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

WORLD = 3
# What nobody waits for unless something hangs.
WAIT_S = 240.0
# Readiness drops within so long; a stopped process is given the heartbeat's limit more.
SOON_S, SILENT_S = 5.0, 4.0
RATE = 16_000


class GroupServer:
    """A server process whose log is read as it comes; `more` settings by their variables' names."""

    def __init__(self, folder: Path, **more: str) -> None:
        config = make_config(folder)
        settings = {
            "MODEL": "test",
            "PORT": "0",
            "PROCESSES": str(WORLD),
            "NUM_THREADS": "1",
            "NUM_STEPS": "2",
            "MAX_SESSIONS": "4",
            "HEARTBEAT_TIMEOUT_S": str(SILENT_S),
            "LOG_FORMAT": "json",
            "DATA_DIR": str(config.data_dir),
            "GALLERY_DIR": str(config.gallery_dir),
            "WEB_DIR": str(config.web_dir),
            **more,
        }
        environment = os.environ | {f"VISAVIS_{k}": v for k, v in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from visavis.cli import main; main()", "serve"],
            env=environment | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._entries: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            with contextlib.suppress(ValueError):
                self._entries.put(json.loads(line))

    def until(self, event: str) -> dict[str, Any]:
        """The next entry of the log with that text."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                entry = self._entries.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r} in\n{''.join(self.lines)}") from None
            if entry.get("event") == event:
                return entry

    def start(self) -> None:
        self.pids = self._pids(self.until("group ready"))
        self.port = int(self.until("serving")["page"].rsplit(":", 1)[1].strip("/"))

    def restarted(self) -> None:
        self.pids = self._pids(self.until("group restarted"))

    def _pids(self, entry: dict[str, Any]) -> dict[int, int]:
        return {int(rank): pid for rank, pid in entry["pids"].items()}

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as got:
                return got.status, json.load(got)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as got:
            return str(got.read().decode())

    async def ready_is(self, status: int, within_s: float) -> dict[str, Any]:
        """Poll until /health/ready says so."""
        async with asyncio.timeout(within_s):
            while True:
                found, body = await asyncio.to_thread(self.get, "/health/ready")
                if found == status:
                    return body
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with connect(
            f"ws://127.0.0.1:{self.port}/v1/realtime/avatar", compression=None, max_size=None
        ) as connection:
            yield Client(connection)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroupServer]:
    found = GroupServer(tmp_path_factory.mktemp("group"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


async def closed(client: Client) -> ConnectionClosed:
    """Read to the end; how it was closed."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await client.read()
            except ConnectionClosed as error:
                return error


async def resume(server: GroupServer, client: Client, before: Client, handle: str) -> None:
    """Come back as docs/protocol.md says, trying again while the server says that it may work."""
    seq = before.media[-1].seq
    last = next(e["event_id"] for e in reversed(before.events) if "event_id" in e)
    await client.send("session.resume", handle=handle, last_seq=seq, last_event_id=last)
    resumed = await client.until("session.resumed")
    assert resumed["lost_frames"] == 0
    assert resumed["from_seq"] == seq + 1


async def lose(server: GroupServer, sign: signal.Signals, within_s: float) -> None:
    """Two sessions, one in the middle of an utterance that can be resumed, the other cannot be."""
    pcm = noise(6 * RATE)
    async with server.client() as held, server.client() as other:
        handle = (await held.until("session.created"))["resume"]["handle"]
        await other.until("session.created")
        await held.configure(on_disconnect="hold")
        await other.configure()
        await other.until_media(speech=False)
        await held.send_audio(pcm)
        await held.send("input_audio_buffer.commit")
        await held.until("input_audio_buffer.committed")
        await held.until_media(speech=True)
        os.kill(server.pids[2], sign)
        ready = asyncio.create_task(server.ready_is(503, within_s))
        for client, resumable in ((held, True), (other, False)):
            end = await closed(client)
            assert end.rcvd is not None
            assert (end.rcvd.code, end.rcvd.reason) == (1012, "engine_restarting")
            assert client.of_type("session.expiring")[-1]["reason"] == "engine_restarting"
            assert client.of_type("session.expiring")[-1]["resumable"] is resumable
            error = client.of_type("error")[-1]["error"]
            assert (error["code"], error["retryable"]) == ("engine_restarting", True)
            assert error["retry_after_s"] > 0
        body = await ready
        assert body["status"] == "restarting"
        assert "rank 2" in body["reason"]
        assert (await asyncio.to_thread(server.get, "/health/live"))[0] == 200
    async with server.client() as early:
        refused = await early.until("error")
        assert refused["error"]["code"] == "engine_restarting"
    await asyncio.to_thread(server.restarted)
    await server.ready_is(200, WAIT_S)
    async with server.client() as back:
        await back.until("session.created")
        await resume(server, back, held, handle)
        done = await back.until("response.done", timeout_s=WAIT_S)
        assert done["status"] == "completed"
        frames = [*held.speech(1), *back.speech(1)]
        assert b"".join(frame.audio for frame in frames) == pcm
        assert [f.pts_us for f in frames] == [frames[0].pts_us + 40_000 * i for i in range(150)]
        await back.until_media(speech=False)
        await back.send("session.close", drain=False)
        await closed(back)


async def test_killed_follower(server: GroupServer) -> None:
    await lose(server, signal.SIGKILL, SOON_S)


async def test_stopped_follower(server: GroupServer) -> None:
    await lose(server, signal.SIGSTOP, SOON_S + SILENT_S)


def read_page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as got:
        page: bytes = got.read()
    return page


async def test_new_session_and_metrics_after_restarts(server: GroupServer) -> None:
    async with server.client() as fresh:
        await fresh.until("session.created")
        await fresh.configure()
        await fresh.send_audio(noise(RATE))
        await fresh.send("input_audio_buffer.commit")
        assert (await fresh.until("response.done"))["status"] == "completed"
    page = f"http://127.0.0.1:{server.port}/metrics"
    text = (await asyncio.to_thread(read_page, page)).decode()
    for line in (
        f"visavis_group_ranks {WORLD}.0",
        "visavis_group_restarts_total 2.0",
        'visavis_group_losses_total{kind="silent"} 1.0',
    ):
        assert line in text.splitlines()


def test_followers_end_when_their_leader_is_killed(server: GroupServer) -> None:
    watches = [os.pidfd_open(pid) for pid in server.pids.values()]
    try:
        server.process.kill()
        server.process.wait()
        for watch in watches:
            # A pidfd is readable once its process has ended.
            assert _readable(watch, WAIT_S)
    finally:
        for watch in watches:
            os.close(watch)


def _readable(descriptor: int, timeout_s: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])
