"""Error and close codes of a server in an unusual moment, or for a client that is quite wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Client, LiveServer, client_of, make_config, noise, running
from stand_in import PaintingEngine, load_painting_engine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import visavis.server.message_handler as server_handler


async def closing(client: Client) -> tuple[int | None, str | None, dict[str, Any]]:
    """Read to the end: close code, reason, and the last event, which has to be an error."""
    with pytest.raises(ConnectionClosed):
        await client.until("never")
    assert client.events[-1]["type"] == "error"
    return client.socket.close_code, client.socket.close_reason, client.events[-1]["error"]


async def until_loaded(server: LiveServer) -> None:
    loaded = server.server._server.host.wait_loaded()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(loaded, server.loop))


async def test_a_model_that_still_loads_is_told_and_serves_later(tmp_path: Path) -> None:
    may_load = threading.Event()

    def load(config: Any) -> Any:
        assert may_load.wait(30)
        return load_painting_engine(config)

    try:
        with running(make_config(tmp_path), load, loaded=False) as server:
            async with client_of(server) as early:
                code, reason, error = await closing(early)
            assert (code, reason) == (4503, "model_loading")
            assert (error["type"], error["retryable"]) == ("capacity_error", True)
            assert error["retry_after_s"] > 0
            with pytest.raises(InvalidStatus) as refused:
                await connect(
                    f"{server.ws}/v1/realtime/avatar",
                    additional_headers={"Accept": "application/json"},
                )
            response = refused.value.response
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert json.loads(response.body)["error"]["code"] == "model_loading"

            may_load.set()
            await asyncio.wait_for(until_loaded(server), 30)
            async with client_of(server) as later:
                await later.configure()
                await later.until_media(speech=False)
    finally:
        may_load.set()


async def test_a_model_that_still_warms_up_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Else the first session would wait for what warm-up compiles."""
    warming, warm = threading.Event(), threading.Event()

    class SlowStart(PaintingEngine):
        def warm_up(self) -> float:
            warming.set()
            assert warm.wait(30)
            return super().warm_up()

    def codes(server: LiveServer) -> list[int]:
        paths = ("live", "startup", "ready")
        return [httpx.get(f"{server.http}/health/{path}").status_code for path in paths]

    try:
        with running(make_config(tmp_path), lambda _: SlowStart(), loaded=False) as server:
            assert await asyncio.to_thread(warming.wait, 30)
            assert await asyncio.to_thread(codes, server) == [200, 503, 503]
            async with client_of(server) as early:
                assert (await closing(early))[1] == "model_loading"
            warm.set()
            await asyncio.wait_for(until_loaded(server), 30)
            assert await asyncio.to_thread(codes, server) == [200, 200, 200]
    finally:
        warm.set()


async def test_a_subprotocol_of_another_version_is_refused(live: LiveServer) -> None:
    async with connect(
        f"{live.ws}/v1/realtime/avatar",
        subprotocols=["avatar.v9"],  # type: ignore[list-item]
        compression=None,
    ) as socket:
        assert socket.subprotocol is None
        code, reason, error = await closing(Client(socket))
    assert (code, reason) == (4400, "unsupported_protocol")
    assert error["type"] == "invalid_request_error"
    assert "avatar.v1" in error["message"]


@pytest.mark.parametrize("configured", [False, True])
async def test_an_event_in_a_binary_message_is_told(live: LiveServer, configured: bool) -> None:
    async with client_of(live) as client:
        if configured:
            await client.configure()
        await client.socket.send(b'{"type": "input_audio_buffer.commit", "event_id": "mine"}')
        code, reason, error = await closing(client)
    assert (code, reason) == (1003, "unsupported_data")
    assert "as text" in error["message"]


async def test_a_fault_of_the_server_ends_one_session_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = server_handler.handle_event

    def faulty(live: Any, event: Any, now_s: float) -> Any:
        if event.event_id == "faulty":
            raise KeyError("nobody thought of this")
        return handle(live, event, now_s)

    monkeypatch.setattr(server_handler, "handle_event", faulty)
    with running(make_config(tmp_path), load_painting_engine) as server:
        async with client_of(server) as neighbour, client_of(server) as client:
            await neighbour.configure()
            await client.configure()
            await client.send_audio(noise(32_000))
            await client.until_media(speech=True)
            await client.send("input_audio_buffer.commit", event_id="faulty")
            code, reason, error = await closing(client)
            await neighbour.send_audio(noise(8_000))
            await neighbour.send("input_audio_buffer.commit")
            assert (await neighbour.until("response.done"))["status"] == "completed"
    assert (code, reason) == (1011, "internal_error")
    assert (error["type"], error["retryable"]) == ("server_error", True)
    # What went wrong is for the log.
    assert "nobody thought" not in json.dumps(client.events)
    (done,) = client.of_type("response.done")
    assert done["status"] == "failed"


async def test_loading_is_told_step_by_step(tmp_path: Path) -> None:
    with running(make_config(tmp_path), load_painting_engine) as server:
        for known in (False, True):
            async with client_of(server) as client:
                await client.configure()
                told = client.of_type("session.loading")
            shares = [event["progress"] for event in told]
            assert {event["stage"] for event in told} == {"avatar"}
            assert shares == sorted(set(shares))
            assert (shares[0], shares[-1]) == (0.0, 1.0)
            # An avatar that was prepared before has nothing between.
            assert len(shares) == 2 if known else len(shares) >= 4
