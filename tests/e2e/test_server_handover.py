"""A replica stops in the middle of a word, and another one goes on with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import GALLERY_ID, Client, LiveServer, client_of, make_config, noise, running
from stand_in import load_painting_engine
from test_server_drain import process, read_to_the_end
from websockets.asyncio.client import connect

from visavis_client import connect as sdk_connect

SECRET = "a secret that all replicas have"
FRAME_US = 40_000


@contextmanager
def replica(folder: Path, name: str, **settings: Any) -> Iterator[LiveServer]:
    options: dict[str, Any] = {
        "handover_dir": folder / "shared",
        "resume_secret": SECRET,
        "replica_id": name,
        "drain_timeout_s": 0.5,
    }
    config = make_config(folder / name, **(options | settings))
    with running(config, load_painting_engine) as server:
        yield server


def drain(server: LiveServer) -> None:
    server.loop.call_soon_threadsafe(server.server.begin_drain)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # of another loop
            await asyncio.sleep(0.02)


async def resume(client: Client, handle: str, before: Client) -> dict[str, Any]:
    await client.until("session.created")
    last = before.media[-1].seq if before.media else None
    await client.send(
        "session.resume",
        handle=handle,
        last_seq=last,
        last_event_id=before.events[-1]["event_id"],
    )
    return await client.until("session.resumed")


async def begin(client: Client, pcm: bytes, **session: Any) -> str:
    created = await client.until("session.created")
    await client.configure(on_disconnect="hold", **session)
    await client.send_audio(pcm)
    await client.send("input_audio_buffer.commit")
    await client.until_media(speech=True)
    return str(created["resume"]["handle"])


@pytest.mark.parametrize("video", ["h264", "jpeg"])
async def test_speech_goes_on_elsewhere_sample_by_sample(tmp_path: Path, video: str) -> None:
    pcm = noise(16_000 * 4)
    with replica(tmp_path, "one") as one, replica(tmp_path, "two") as two:
        async with client_of(one) as before:
            handle = await begin(before, pcm, output={"video": video, "width": 128})
            drain(one)
            expiring = await before.until("session.expiring")
            closed = await read_to_the_end(before)
        async with client_of(two) as after:
            resumed = await resume(after, handle, before)
            done = await after.until("response.done")
            first = after.media[0]
            await after.send_audio(noise(8_000, seed=1))
            await after.send("input_audio_buffer.commit")
            again = await after.until("response.done")
    assert (expiring["reason"], expiring["resumable"]) == ("server_draining", True)
    assert closed == (1012, "server_draining")
    assert not before.of_type("response.done")
    frames = before.speech() + after.speech(1)
    assert b"".join(frame.audio for frame in frames) == pcm
    media = before.media + after.media
    assert [f.pts_us for f in media] == [i * FRAME_US for i in range(len(media))]
    assert [f.seq for f in media] == list(range(len(media)))
    assert (done["status"], done["sent_ms"]) == ("completed", 4000)
    assert (again["status"], again["response_index"]) == ("completed", 2)
    assert (resumed["lost_frames"], resumed["from_seq"]) == (0, len(before.media))
    assert resumed["session"]["output"]["width"] == 128
    assert resumed["resume"]["handle"] != handle
    # A decoder that has seen nothing can begin here.
    assert first.flags & 1
    assert first.flags & 16
    ids = [event["event_id"] for event in before.events[1:] + after.events[1:]]
    assert len(set(ids)) == len(ids)
    assert list((tmp_path / "shared").iterdir()) == []


async def test_a_barge_in_after_the_move_goes_on_from_what_was_seen(tmp_path: Path) -> None:
    with replica(tmp_path, "one") as one, replica(tmp_path, "two") as two:
        async with client_of(one) as before:
            handle = await begin(before, noise(16_000 * 8))
            drain(one)
            await read_to_the_end(before)
        async with client_of(two) as after:
            await resume(after, handle, before)
            await after.send("response.cancel")
            cleared = await after.until("output.cleared")
            done = await after.until("response.done")
            frame = await after.until_media(speech=False)
    assert (cleared["epoch"], done["status"]) == (1, "cancelled")
    assert frame.pts_us == cleared["from_pts_us"]


async def test_a_session_without_its_client_is_left_too(tmp_path: Path) -> None:
    with replica(tmp_path, "one") as one, replica(tmp_path, "two") as two:
        async with client_of(one) as before:
            handle = await begin(before, noise(16_000 * 2))
            before.socket.transport.abort()
        host = one.server._server.desk
        await until(lambda: any(host.waits(session) for session in host.sessions))
        drain(one)
        await until(lambda: any((tmp_path / "shared").glob("*.session")))
        async with client_of(two) as after:
            await resume(after, handle, before)
            done = await after.until("response.done")
    assert done["status"] == "completed"


async def test_a_bundle_that_was_changed_is_nobody_s_session(tmp_path: Path) -> None:
    with replica(tmp_path, "one") as one, replica(tmp_path, "two") as two:
        async with client_of(one) as before:
            handle = await begin(before, noise(16_000 * 4))
            drain(one)
            await read_to_the_end(before)
        (path,) = (tmp_path / "shared").glob("*.session")
        data = bytearray(path.read_bytes())
        assert np.frombuffer(noise(16_000 * 4)[-400:], np.uint8).tobytes() not in bytes(data)
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        async with client_of(two) as after:
            await after.until("session.created")
            await after.send("session.resume", handle=handle)
            error = (await after.until("error"))["error"]
    assert error["code"] == "resume_elsewhere"


async def test_a_session_of_another_key_is_not_given_away(tmp_path: Path) -> None:
    keys = {"api_keys": f"app:{'a' * 40},other:{'b' * 40}"}
    headers = [{"Authorization": f"Bearer {letter * 40}"} for letter in "ab"]
    with replica(tmp_path, "one", **keys) as one, replica(tmp_path, "two", **keys) as two:
        address = "/v1/realtime/avatar"
        async with connect(one.ws + address, additional_headers=headers[0]) as socket:
            before = Client(socket)
            handle = await begin(before, noise(16_000 * 4))
            drain(one)
            await read_to_the_end(before)
        async with connect(two.ws + address, additional_headers=headers[1]) as socket:
            thief = Client(socket)
            await thief.until("session.created")
            await thief.send("session.resume", handle=handle)
            error = (await thief.until("error"))["error"]
            assert error["code"] == "not_permitted"
            await read_to_the_end(thief)
        async with connect(two.ws + address, additional_headers=headers[0]) as socket:
            after = Client(socket)
            await resume(after, handle, before)
            assert (await after.until("response.done"))["status"] == "completed"


@pytest.mark.parametrize("bound", [GALLERY_ID, None])
async def test_a_token_that_has_expired_since_brings_its_session_along(
    tmp_path: Path, bound: str | None
) -> None:
    keys = {"api_keys": f"app:{'a' * 40}", "token_secrets": "s" * 32}
    with replica(tmp_path, "one", **keys) as one, replica(tmp_path, "two", **keys) as two:
        auth, app = one.server._server.auth, one.config.keys.named("app")
        assert app is not None
        wishes: dict[str, Any] = {"max_session_s": 600.0, "ttl_s": 60, "avatar_id": bound}
        token = auth.tokens.issue(app, **wishes).value
        # By the clock of the other replica it opens nothing any more.
        two.server._server.auth.tokens._now = lambda: time.time() + 90
        headers = {"Authorization": f"Bearer {token}"}
        address = "/v1/realtime/avatar"
        async with connect(one.ws + address, additional_headers=headers) as socket:
            before = Client(socket)
            handle = await begin(before, noise(16_000 * 4))
            drain(one)
            await read_to_the_end(before)
        async with connect(two.ws + address, additional_headers=headers) as socket:
            late = Client(socket)
            await late.send("session.update", session={"avatar_id": GALLERY_ID})
            assert (await late.until("error"))["error"]["code"] == "token_expired"
        async with connect(two.ws + address, additional_headers=headers) as socket:
            after = Client(socket)
            await resume(after, handle, before)
            assert (await after.until("response.done"))["status"] == "completed"


async def test_a_token_for_another_avatar_does_not_bring_it_along(tmp_path: Path) -> None:
    keys = {"api_keys": f"app:{'a' * 40}", "token_secrets": "s" * 32}
    with replica(tmp_path, "one", **keys) as one, replica(tmp_path, "two", **keys) as two:
        auth, app = one.server._server.auth, one.config.keys.named("app")
        assert app is not None
        token = auth.tokens.issue(app, max_session_s=600.0, ttl_s=60, avatar_id="other").value
        address = "/v1/realtime/avatar"
        owner = {"Authorization": f"Bearer {'a' * 40}"}
        async with connect(one.ws + address, additional_headers=owner) as socket:
            before = Client(socket)
            handle = await begin(before, noise(16_000 * 4))
            drain(one)
            await read_to_the_end(before)
        viewer = {"Authorization": f"Bearer {token}"}
        async with connect(two.ws + address, additional_headers=viewer) as socket:
            client = Client(socket)
            await client.until("session.created")
            await client.send("session.resume", handle=handle)
            assert (await client.until("error"))["error"]["code"] == "not_permitted"


async def test_an_utterance_that_is_still_open_does_not_hold_the_replica(tmp_path: Path) -> None:
    pcm = noise(16_000)
    slow = {"drain_timeout_s": 120.0}
    with replica(tmp_path, "one", **slow) as one, replica(tmp_path, "two", **slow) as two:
        async with client_of(one) as before:
            handle = str((await before.until("session.created"))["resume"]["handle"])
            await before.configure(on_disconnect="hold")
            await before.send_audio(pcm)
            await before.until_media(speech=True)
            drain(one)
            async with asyncio.timeout(30):
                closed = await read_to_the_end(before)
        async with client_of(two) as after:
            await resume(after, handle, before)
            await after.send_audio(pcm)
            await after.send("input_audio_buffer.commit")
            done = await after.until("response.done")
    assert closed == (1012, "server_draining")
    assert not before.of_type("response.done")
    assert done["status"] == "completed"
    assert b"".join(f.audio for f in before.speech() + after.speech(1)) == 2 * pcm


async def test_without_a_store_a_drain_ends_the_session(tmp_path: Path) -> None:
    with replica(tmp_path, "one", handover_dir=None) as one:
        async with client_of(one) as client:
            await begin(client, noise(16_000 * 4))
            drain(one)
            assert await read_to_the_end(client) == (1012, "server_draining")
    (expiring,) = client.of_type("session.expiring")
    assert expiring["resumable"] is False
    assert client.of_type("response.done")[0]["status"] == "cancelled"


class Switch:
    """What a load balancer does: connections go to `port`, whichever that is now."""

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        pipes = (self._pipe(reader, other_writer), self._pipe(other_reader, writer))
        await asyncio.gather(*pipes, return_exceptions=True)

    @staticmethod
    async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_the_python_client_notices_nothing_of_sigterm(tmp_path: Path) -> None:
    pcm = noise(16_000 * 5)
    shared = {
        "handover_dir": tmp_path / "shared",
        "resume_secret": SECRET,
        "drain_timeout_s": 0.5,
    }
    (tmp_path / "first").mkdir()
    with (
        process(tmp_path / "first", replica_id="first", **shared) as first,
        replica(tmp_path, "second") as second,
    ):
        await first.until("/health/ready", 200)
        switch = Switch(first.port)
        async with switch.serve() as port:
            address = f"http://127.0.0.1:{port}"
            async with sdk_connect(address, avatar=GALLERY_ID, video="none") as session:
                heard = bytearray()
                async for frame in session.speak(pcm):
                    heard += frame.audio
                    if frame.pts_us and len(heard) == 20 * 1280:
                        switch.port = second.port
                        first.child.send_signal(signal.SIGTERM)
                    assert not frame.gap
                assert bytes(heard) == pcm
                assert session.resumes == 1
                again = noise(8_000, seed=1)
                assert b"".join([f.audio async for f in session.speak(again)]) == again
        assert await first.ended() == 0
        log = (tmp_path / "first" / "log").read_text()
    assert "left for another replica" in log
    assert SECRET not in log
