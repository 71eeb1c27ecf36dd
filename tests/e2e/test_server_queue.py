"""A full server: who comes next waits, knows where and for how long, and may go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from live_server import (
    GALLERY_ID,
    Client,
    LiveServer,
    client_of,
    drawn_face,
    encoded,
    make_config,
    noise,
    running,
)
from stand_in import load_painting_engine
from websockets.exceptions import ConnectionClosed

from visavis.server.engine_load import LOAD_TARGET, LONGEST_LIVE, EngineLoad
from visavis.server.protocol import FPS
from visavis.server.worker import WorkerBusyError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(tmp_path_factory.mktemp("small"), max_sessions=1, max_queued_sessions=2)
    with running(config, load_painting_engine) as server:
        yield server


async def capacity(server: LiveServer) -> dict[str, object]:
    async with httpx.AsyncClient() as http:
        answer: dict[str, object] = (await http.get(f"{server.http}/v1/realtime/capacity")).json()
        return answer


async def until_queue(server: LiveServer, length: int) -> None:
    async with asyncio.timeout(10):
        # The server is in another thread, with events of its own.
        while (await capacity(server))["queue"] != length:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_next_one_waits_and_then_speaks(small: LiveServer) -> None:
    async with client_of(small) as second:
        async with client_of(small) as first:
            await first.configure()
            await second.send(
                "session.update", session={"avatar_id": GALLERY_ID, "output": {"video": "jpeg"}}
            )
            queued = await second.until("session.queued")
            assert queued["position"] == 1
            now = await capacity(small)
            assert (now["active"], now["max"], now["queue"]) == (1, 1, 1)
        await second.until("session.updated")
        pcm = noise(8_000)
        await second.send_audio(pcm)
        await second.send("input_audio_buffer.commit")
        done = await second.until("response.done")
    assert done["status"] == "completed"
    assert b"".join(frame.audio for frame in second.speech()) == pcm
    await until_queue(small, 0)


async def test_one_who_goes_frees_its_place_in_line_at_once(small: LiveServer) -> None:
    async with client_of(small) as first:
        await first.configure()
        async with client_of(small) as third:
            async with client_of(small) as second:
                for number, client in enumerate((second, third), 1):
                    await client.send("session.update", session={"avatar_id": GALLERY_ID})
                    assert (await client.until("session.queued"))["position"] == number
            moved = await third.until("session.queued")
            assert moved["position"] == 1
            assert (await capacity(small))["queue"] == 1
        await until_queue(small, 0)


async def test_a_full_line_refuses(small: LiveServer) -> None:
    update = {"avatar_id": GALLERY_ID}
    async with client_of(small) as first, client_of(small) as second, client_of(small) as third:
        await first.configure()
        for client in (second, third):
            await client.send("session.update", session=update)
            await client.until("session.queued")
        async with client_of(small) as fourth:
            await fourth.send("session.update", session=update)
            error = (await fourth.until("error"))["error"]
            assert error["code"] == "capacity"
            assert error["retry_after_s"] >= 1


async def listed(server: LiveServer) -> dict[str, str]:
    """The state of each session that an administrator sees."""
    async with httpx.AsyncClient() as http:
        answer = (await http.get(f"{server.http}/v1/realtime/sessions")).json()
    assert all(session["avatar_id"] == GALLERY_ID for session in answer["data"])
    return {session["id"]: session["state"] for session in answer["data"]}


async def end(server: LiveServer, client: Client, session_id: str) -> None:
    """Let an administrator end a session; its client is told."""
    async with httpx.AsyncClient() as http:
        answer = await http.delete(f"{server.http}/v1/realtime/sessions/{session_id}")
    assert answer.status_code == 204
    with pytest.raises(ConnectionClosed):
        await client.until("never")
    assert (client.socket.close_code, client.socket.close_reason) == (4403, "session_ended")


async def test_who_waits_or_loads_is_listed_and_may_be_ended(
    small: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def endless(*_: object) -> object:
        loop.call_soon_threadsafe(begun.set)
        return await asyncio.Event().wait()

    update = {"avatar_id": GALLERY_ID}
    async with client_of(small) as first, client_of(small) as second:
        one, two = [(await c.until("session.created"))["session_id"] for c in (first, second)]
        assert await listed(small) == {}
        await first.configure()
        await second.send("session.update", session=update)
        await second.until("session.queued")
        assert await listed(small) == {one: "connected", two: "queued"}
        await end(small, second, two)
        await until_queue(small, 0)
        assert await listed(small) == {one: "connected"}
        await end(small, first, one)
    async with client_of(small) as third:
        monkeypatch.setattr(small.server._server.host, "prepare_stored", endless)
        three = (await third.until("session.created"))["session_id"]
        await third.send("session.update", session=update)
        async with asyncio.timeout(10):
            await begun.wait()
        assert await listed(small) == {three: "loading"}
        await end(small, third, three)
    monkeypatch.undo()
    async with client_of(small) as fourth:
        # The place that was taken meanwhile is free.
        await fourth.configure()


async def test_sockets_that_say_nothing_are_bounded(tmp_path: Path) -> None:
    config = make_config(tmp_path, max_pending_sockets=2)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as first, client_of(server) as second:
            for client in (first, second):
                await client.until("session.created")
            async with client_of(server) as third:
                error = (await third.until("error"))["error"]
                assert (error["code"], error["type"]) == ("capacity", "capacity_error")
                assert error["retry_after_s"] > 0
                assert not third.of_type("session.created")
                with pytest.raises(ConnectionClosed):
                    await third.until("never")
                assert third.socket.close_code == 4429
            await first.configure(output={"video": "none"})
            async with client_of(server) as fourth:
                await fourth.until("session.created")
        async with asyncio.timeout(10):
            # The server is in another thread, with events of its own.
            while server.server._server.connections.pending:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_an_engine_with_too_much_to_do_is_no_fault_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise WorkerBusyError("256 pieces of work are queued, 256 at most; try again later")

    with running(make_config(tmp_path), load_painting_engine) as server:
        monkeypatch.setattr(server.server._server.host.worker, "submit", full)
        async with client_of(server) as client:
            await client.send("session.update", session={"avatar_id": GALLERY_ID})
            error = (await client.until("error"))["error"]
            assert (error["code"], error["retryable"]) == ("capacity", True)
            assert error["retry_after_s"] > 0
        async with httpx.AsyncClient() as http:
            photo = {"file": ("me.jpg", encoded(drawn_face()))}
            answer = await http.post(f"{server.http}/v1/avatars", files=photo)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "capacity")
        assert int(answer.headers["Retry-After"]) >= 1
        monkeypatch.undo()


async def test_no_more_are_admitted_than_can_speak_with_the_pictures_that_they_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the machine does beside this test is not the subject.
    monkeypatch.setattr(EngineLoad, "observe", lambda *_, **__: None)
    config = make_config(tmp_path, max_sessions=None, max_queued_sessions=0)
    with running(config, load_painting_engine) as server:
        load = server.server._server.host.load
        model = load._model_share(load.quality, LONGEST_LIVE)
        large_s = load.picture_s("h264", (512, 512), 25)
        usual_s = load.picture_s("h264", (256, 256), 25)
        # Measured with the real encoder before anybody came.
        assert large_s > usual_s > 0
        usual = int(LOAD_TARGET / (model + FPS * usual_s))
        assert load.capacity == usual
        async with AsyncExitStack() as stack:
            admitted, size = 0, {"video": "h264", "width": 512, "height": 512}
            while True:
                client = await stack.enter_async_context(client_of(server))
                await client.send(
                    "session.update",
                    session={"avatar_id": GALLERY_ID, "output": size, "idle": "freeze"},
                )
                try:
                    await client.until("session.updated")
                except ConnectionClosed:
                    break
                admitted += 1
                assert admitted <= usual
            assert client.socket.close_code == 4429
            assert client.events[-1]["error"]["code"] == "capacity"
            assert admitted == max(1, int(LOAD_TARGET / (model + FPS * large_s)))
            assert load.capacity >= admitted
