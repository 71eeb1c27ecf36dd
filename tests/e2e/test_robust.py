"""What must not disturb a server: nonsense, clients that stop reading, die or come by hundreds,
and clocks that jump. A neighbour speaks meanwhile, and everything of it has to come."""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import GALLERY_ID, Client, LiveServer, client_of, make_config, noise, running
from malformed import malformed
from stand_in import load_painting_engine
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

import visavis.server.message_handler as server_handler
from visavis_client import AvatarClient, AvatarFrame, connect
from visavis_client.errors import SessionClosedError

MALFORMED = 100_000
FRAME_US = 40_000


class Neighbour:
    """Speaks one utterance after the other, and checks what comes back; in a thread of its own, for
    the test is busy with what disturbs it."""

    def __init__(self) -> None:
        self._leave = threading.Event()
        self._lead_s = 0.0
        self.utterances = 0
        self.frames: list[AvatarFrame] = []
        self.came_s: list[float] = []

    def leave(self) -> None:
        """Say no more."""
        self._leave.set()

    def run(self, server: LiveServer) -> None:
        """Speak until `leave`."""
        self._lead_s = server.config.speech_lead_ms / 1000
        asyncio.run(self._speak(server))

    async def _speak(self, server: LiveServer) -> None:
        pcm = noise(24_000)
        async with connect(server.http, avatar=GALLERY_ID, video="none") as session:
            while True:
                said = bytearray()
                async for frame in session.speak(pcm, idle=True):
                    self.frames.append(frame)
                    self.came_s.append(time.monotonic())
                    if self._leave.is_set():
                        return
                    said += b"" if frame.idle else frame.audio
                assert bytes(said) == pcm
                self.utterances += 1

    def check(self) -> None:
        """Everything came, in order, on one timeline, and at its pace: a player that waits once for
        as much as the server sends ahead never stands still again."""
        assert self.utterances >= 1
        assert not any(frame.gap for frame in self.frames)
        times = [frame.pts_us for frame in self.frames]
        assert times == list(range(times[0], times[0] + FRAME_US * len(times), FRAME_US))
        assert self.longest_stall_s() < self._lead_s

    def longest_stall_s(self) -> float:
        """How long a player that shows each frame for its 40 ms stood still at most."""
        longest_s, plays_to_s = 0.0, self.came_s[0]
        for came_s in self.came_s:
            longest_s = max(longest_s, came_s - plays_to_s)
            plays_to_s = max(plays_to_s, came_s) + FRAME_US / 1e6
        return longest_s


@asynccontextmanager
async def neighbour_of(server: LiveServer, *, utterances: int = 1) -> AsyncIterator[Neighbour]:
    """A neighbour who speaks until the block ends, and for so many utterances after it."""
    neighbour = Neighbour()
    speaking = asyncio.create_task(asyncio.to_thread(neighbour.run, server))
    try:
        yield neighbour
        wanted = neighbour.utterances + utterances
        async with asyncio.timeout(20):
            while neighbour.utterances < wanted:
                if speaking.done():
                    speaking.result()
                await asyncio.sleep(0.05)
    finally:
        neighbour.leave()
        await asyncio.gather(speaking, return_exceptions=True)
    neighbour.check()


async def active(server: LiveServer) -> int:
    return (await AvatarClient(server.http).capacity()).active


async def until_active(server: LiveServer, wanted: int, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await active(server) != wanted:  # noqa: ASYNC110 another process' doing
            await asyncio.sleep(0.05)


def batched(messages: Iterator[str | bytes], size: int) -> Iterator[list[str | bytes]]:
    while batch := list(itertools.islice(messages, size)):
        yield batch


async def count_errors(client: Client, codes: dict[str, int]) -> None:
    """Count the errors that the server answered with so far."""
    await client.send("session.ping", t=1)
    async with asyncio.timeout(60):
        async for message in client.socket:
            event = json.loads(message) if isinstance(message, str) else {"type": "media"}
            if event["type"] == "session.pong":
                return
            if event["type"] == "error":
                code = event["error"]["code"]
                codes[code] = codes.get(code, 0) + 1


async def test_a_hundred_thousand_malformed_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else every twentieth would end the session, which has a test of its own.
    monkeypatch.setattr(server_handler, "MAX_CLIENT_ERRORS", 2 * MALFORMED)
    codes: dict[str, int] = {}
    corpus = malformed(MALFORMED)
    with running(make_config(tmp_path), load_painting_engine) as server:
        async with neighbour_of(server), client_of(server) as rogue:
            await rogue.configure(output={"video": "none"}, idle="freeze")

            for batch in batched(corpus, 1_000):
                for message in batch:
                    await rogue.socket.send(message)
                await count_errors(rogue, codes)
            # Alive, and not confused: it can still speak.
            await rogue.send_audio(noise(8_000))
            await rogue.send("input_audio_buffer.commit")
            assert (await rogue.until("response.done"))["status"] == "completed"
    assert sum(codes.values()) == MALFORMED
    assert set(codes) == {"invalid_json", "invalid_event", "invalid_frame", "invalid_audio"}
    assert min(codes.values()) > MALFORMED / 1_000


async def test_a_client_that_stops_acknowledging_is_closed(tmp_path: Path) -> None:
    config = make_config(tmp_path, slow_client_s=1.0, max_inflight_ms=400)
    with running(config, load_painting_engine) as server:
        async with neighbour_of(server), client_of(server) as slow:
            await slow.configure()
            frame = await slow.until_media(speech=False)
            await slow.send("playback.update", pts_us=frame.pts_us)
            start_s = time.monotonic()
            with pytest.raises(ConnectionClosed):
                await slow.until("never")
            assert 0.9 < time.monotonic() - start_s < 6
            assert slow.socket.close_code == 4408
            assert slow.of_type("error")[-1]["error"]["code"] == "slow_client"
            await until_active(server, 1)


async def test_a_client_that_stops_reading_is_closed_and_costs_no_memory(tmp_path: Path) -> None:
    config = make_config(tmp_path, slow_client_s=1.0)
    with running(config, load_painting_engine) as server:
        shrink_buffers(server)
        async with neighbour_of(server):
            await stop_reading(server)
            before = rss_mib()
            for _ in range(2):
                await stop_reading(server)
            assert rss_mib() - before < 32


async def test_who_asks_without_reading_learns_why_it_is_closed(tmp_path: Path) -> None:
    with running(make_config(tmp_path), load_painting_engine) as server:
        shrink_buffers(server)
        async with neighbour_of(server):
            deaf = await deaf_socket(server)
            reader = Client(deaf)
            await reader.configure(output={"video": "none"}, idle="freeze")
            said = {"type": "input_audio_buffer.append", "audio": base64.b64encode(noise(800))}
            await deaf.send(json.dumps(said, default=bytes.decode))
            for number in range(4_000):
                try:
                    await deaf.send(json.dumps({"type": "session.ping", "t": number}))
                except ConnectionClosed:
                    break
            with pytest.raises(ConnectionClosed):
                await reader.until("never")
    assert (deaf.close_code, deaf.close_reason) == (4408, "slow_client")
    (created,) = reader.of_type("response.created")
    (done,) = reader.of_type("response.done")
    assert done["response_id"] == created["response_id"]
    assert [e["error"]["code"] for e in reader.of_type("error")] == ["slow_client"]
    assert reader.events[-1]["type"] == "error"
    assert len(reader.of_type("session.pong")) < 4_000


def shrink_buffers(server: LiveServer) -> None:
    """Else the system takes megabytes before the server notices anything."""
    for listening in server.server.servers:
        for listener in listening.sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)


async def stop_reading(server: LiveServer) -> None:
    """A client that takes nothing once it is configured, until the server has had enough."""
    deaf = await deaf_socket(server)
    settings = {"avatar_id": GALLERY_ID, "output": {"video": "jpeg", "quality": 100}}
    await deaf.send(json.dumps({"type": "session.update", "session": settings}))
    await until_active(server, 2)
    # Nobody calls recv: the sockets fill, and then the server has to decide.
    await until_active(server, 1, timeout_s=20)
    deaf.transport.abort()


async def deaf_socket(server: LiveServer) -> ClientConnection:
    """A socket that takes next to nothing while nobody calls recv."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", server.port))
    return await open_socket(
        f"{server.ws}/v1/realtime/avatar",
        sock=narrow,
        subprotocols=["avatar.v1"],  # type: ignore[list-item]
        compression=None,
        max_size=None,
        max_queue=1,
        ping_interval=None,
    )


CHILD = """
import sys
from visavis_client import connect_sync
with connect_sync(sys.argv[1], avatar=sys.argv[2], resume=sys.argv[3] == "hold") as session:
    for frame in session.speak(bytes(16_000 * 2 * 20)):
        print(frame.index, flush=True)
"""


@pytest.mark.parametrize("how", ["end", "hold"])
async def test_a_client_killed_in_the_middle_of_a_chunk(tmp_path: Path, how: str) -> None:
    config = make_config(tmp_path, resume_ttl_s=1.0)
    with running(config, load_painting_engine) as server:
        async with neighbour_of(server):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CHILD, server.http, GALLERY_ID, how),
                stdout=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None
            await asyncio.wait_for(child.stdout.readline(), 30)
            assert await active(server) == 2
            child.send_signal(signal.SIGKILL)
            await child.wait()
            await until_active(server, 1, timeout_s=5)


async def test_the_wall_clock_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10**9))
    real = time.time

    def jumping() -> float:
        # A day ahead, a day back, at every look.
        return real() + (86_400 if next(jumps) % 2 else -86_400)

    config = make_config(tmp_path, idle_timeout_s=30, max_session_s=60, stats_every_s=0.5)
    with running(config, load_painting_engine) as server:
        monkeypatch.setattr(time, "time", jumping)
        start_s = time.monotonic()
        pcm = noise(32_000)
        async with connect(server.http, avatar=GALLERY_ID, video="none") as session:
            frames = [frame async for frame in session.speak(pcm, idle=True)]
            seen = [event.type for event in await events_so_far(session)]
        assert b"".join(frame.audio for frame in frames if not frame.idle) == pcm
        times = [frame.pts_us for frame in frames]
        assert times == list(range(times[0], times[0] + FRAME_US * len(times), FRAME_US))
        # At the pace of real time: two seconds of speech, of which one chunk may be ahead.
        assert 0.7 < time.monotonic() - start_s < 10
        assert "session.expiring" not in seen
        assert "error" not in seen


async def watch(session: Any) -> None:
    async for _ in session.frames():
        pass


async def events_so_far(session: Any) -> list[Any]:
    await session.close()
    return [event async for event in session.events()]


async def test_hundreds_of_visits_leave_nothing_behind(tmp_path: Path) -> None:
    config = make_config(tmp_path, max_sessions=64, resume_ttl_s=0.2)
    with running(config, load_painting_engine) as server:
        await visit(server, 40, others=0)
        before = await belongings(server)
        async with neighbour_of(server):
            await visit(server, 200, others=1)
        await until_active(server, 0)
        after = await belongings(server)
    assert after["tasks"] <= before["tasks"]
    # asyncio's pools make their threads one by one, up to a fixed number.
    assert after["threads"] <= before["threads"] + 6
    assert after["files"] <= before["files"] + 2
    assert after["objects"] <= before["objects"] + 20


async def visit(server: LiveServer, times: int, *, others: int) -> None:
    """Come in eights and leave in every way; `others` are there all the time."""

    async def one(number: int) -> None:
        manners = number % 4
        async with client_of(server) as client:
            if manners == 0:
                client.socket.transport.abort()
                return
            on_disconnect = "hold" if manners == 3 else "end"
            await client.configure(output={"video": "none"}, on_disconnect=on_disconnect)
            await client.send_audio(noise(4_000))
            if manners == 1:
                await client.send("session.close")
            else:
                await client.until("response.created")
                client.socket.transport.abort()

    for start in range(0, times, 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))
    await until_active(server, others)


async def belongings(server: LiveServer) -> dict[str, int]:
    """What the server holds, once it has settled."""
    await asyncio.sleep(0.5)
    gc.collect()
    kinds = [type(item) for item in gc.get_objects()]
    return {
        "tasks": len(asyncio.all_tasks(server.loop)),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "objects": sum("visavis.server" in str(kind.__module__) for kind in kinds),
    }


def rss_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def test_the_twentieth_wrong_message_is_the_last(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure(output={"video": "none"})
        for _ in range(20):
            await client.socket.send("{")
        with pytest.raises(ConnectionClosed):
            await client.until("never")
        assert client.socket.close_code == 1007


async def test_the_sdk_says_why_a_slow_session_ended(tmp_path: Path) -> None:
    config = make_config(tmp_path, slow_client_s=1.0, max_inflight_ms=400)
    with running(config, load_painting_engine) as server:
        options: dict[str, Any] = {"playback": "reported", "resume": False}
        async with connect(server.http, avatar=GALLERY_ID, **options) as session:
            await session.report_playback(await anext(session.frames()))
            with pytest.raises(SessionClosedError) as closed:
                await watch(session)
            assert closed.value.code == "slow_client"
