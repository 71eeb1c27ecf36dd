"""A full server: who comes next waits, knows where and for how long, and may go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from live_server import GALLERY_ID, LiveServer, client_of, make_config, noise, running
from stand_in import load_painting_engine
from websockets.exceptions import ConnectionClosed

from visavis.server.engine_load import LOAD_TARGET, LONGEST_LIVE, EngineLoad
from visavis.server.protocol import FPS


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
        assert large_s > 2 * usual_s > 0
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
