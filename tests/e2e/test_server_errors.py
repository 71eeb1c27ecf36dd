"""Clients that do it wrong: each gets a clear error, and its neighbour never notices."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from pathlib import Path
from typing import Any

import pytest
from live_server import Client, LiveServer, client_of, encoded, make_config, noise, running
from PIL import Image
from stand_in import load_painting_engine
from websockets.exceptions import ConnectionClosed


async def closing(client: Client) -> tuple[int, str, dict[str, Any] | None]:
    """Read to the end: close code, reason, and the last error."""
    try:
        async with asyncio.timeout(20):
            while True:
                await client.read()
    except ConnectionClosed:
        errors = client.of_type("error")
        code = client.socket.close_code
        assert code is not None
        return code, client.socket.close_reason or "", errors[-1]["error"] if errors else None


async def speaks(client: Client, samples: int = 8_000) -> None:
    """The session works: something said comes back whole."""
    pcm = noise(samples, seed=9)
    await client.send_audio(pcm)
    await client.send("input_audio_buffer.commit")
    done = await client.until("response.done")
    assert done["status"] == "completed"
    assert b"".join(f.audio for f in client.speech(done["response_index"])) == pcm


@pytest.mark.parametrize("rate", [4_000, 96_000])
async def test_wrong_rate_is_refused_and_can_be_mended(live: LiveServer, rate: int) -> None:
    async with client_of(live) as client:
        await client.send(
            "session.update",
            event_id="mine",
            session={"avatar_id": "drawn", "input_audio": {"format": "pcm16", "rate": rate}},
        )
        error = (await client.until("error"))["error"]
        assert error["code"] == "invalid_sample_rate"
        assert error["event_id"] == "mine"
        assert str(rate) in error["message"]
        await client.configure()
        await speaks(client)


@pytest.mark.parametrize(
    "image",
    [
        "not base64!",
        base64.b64encode(b"no picture at all").decode(),
        base64.b64encode(encoded(Image.new("RGB", (300, 300), "navy"))).decode(),
    ],
    ids=["base64", "bytes", "faceless"],
)
async def test_bad_image_is_explained_and_can_be_mended(live: LiveServer, image: str) -> None:
    async with client_of(live) as client:
        await client.send("session.update", session={"image": image})
        error = (await client.until("error"))["error"]
        assert error["code"] == "invalid_image"
        assert error["param"] == "session.image"
        assert any(hint in error["message"] for hint in ("send", "use", "save"))
        await client.configure()
        await client.until_media(speech=False)


async def test_bad_messages_are_told_and_the_socket_stays_open(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.send("input_audio_buffer.commit")
        assert (await client.until("error"))["error"]["code"] == "session_not_configured"
        await client.configure()
        for message, code in [
            ("{", "invalid_json"),
            (b"\x01", "invalid_frame"),
            ('{"type": "avatar.set_state", "state": "flying"}', "invalid_event"),
            ('{"type": "input_audio_buffer.append", "audio": "AA=="}', "invalid_audio"),
            ('{"type": "input_audio_buffer.append", "audio": "*"}', "invalid_audio"),
            ('{"type": "input_audio_buffer.commit"}', "input_buffer_empty"),
            (
                '{"type": "session.update", "session": {"avatar_id": "other"}}',
                "immutable_field",
            ),
        ]:
            await client.socket.send(message)
            assert (await client.until("error"))["error"]["code"] == code
        await client.socket.send('{"type": "of.tomorrow"}')
        await client.socket.send(bytes([99]) + b"\0" + (32).to_bytes(2, "little") + bytes(28))
        await speaks(client)
        assert len(client.of_type("error")) == 8


async def test_endless_garbage_ends_that_session_only(live: LiveServer) -> None:
    async with client_of(live) as neighbour, client_of(live) as client:
        await neighbour.configure()
        talking = asyncio.create_task(speaks(neighbour, 48_000))
        await client.configure()
        for number in range(100):
            try:
                await client.socket.send("{" if number % 2 else b"garbage")
            except ConnectionClosed:
                break
        code, reason, error = await closing(client)
        assert (code, reason) == (1007, "too_many_errors")
        assert error is not None
        assert error["code"] == "too_many_errors"
        await talking
        assert not neighbour.of_type("error")


async def test_too_large_a_message_is_explained_and_closed(live: LiveServer) -> None:
    async with client_of(live) as neighbour, client_of(live) as client:
        await neighbour.configure()
        await client.configure()
        await client.socket.send(bytes((1 << 20) + 1))
        code, _, error = await closing(client)
        assert code == 1009
        assert error is not None
        assert error["code"] == "message_too_large"
        await speaks(neighbour)


async def test_far_too_large_a_message_is_closed(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(bytes(5 << 20))
        code, _, _ = await closing(client)
        assert code in (1009, 1006)


async def test_unknown_avatar_closes_with_4404(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.send("session.update", session={"avatar_id": "nobody"})
        code, reason, error = await closing(client)
        assert (code, reason) == (4404, "avatar_not_found")
        assert error is not None
        assert "GET /v1/avatars" in error["message"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", ".hidden", "a" * 65, "-x", "ü"])
async def test_avatar_ids_cannot_leave_the_folder(live: LiveServer, name: str) -> None:
    async with client_of(live) as client:
        await client.send("session.update", session={"avatar_id": name})
        assert (await client.until("error"))["error"]["code"] == "invalid_avatar_id"


async def test_a_vanished_client_frees_its_place(live: LiveServer) -> None:
    admission = live.server._server.admission
    async with client_of(live) as client:
        await client.configure()
        await client.send_audio(noise(160_000))
        await client.until_media(speech=True)
        client.socket.transport.abort()
    emptied = asyncio.run_coroutine_threadsafe(admission.wait_empty(), live.loop)
    await asyncio.wait_for(asyncio.wrap_future(emptied), 10)


async def test_no_session_update_in_time(tmp_path: Path) -> None:
    config = make_config(tmp_path, handshake_timeout_s=0.2)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as client:
            code, _, error = await closing(client)
    assert code == 4400
    assert error is not None
    assert error["code"] == "session_update_timeout"


async def test_full_server_refuses_after_accepting(tmp_path: Path) -> None:
    with running(
        make_config(tmp_path, max_sessions=1, max_queued_sessions=0), load_painting_engine
    ) as server:
        async with client_of(server) as first:
            await first.configure()
            async with client_of(server) as second:
                await second.send("session.update", session={"avatar_id": "drawn"})
                code, reason, error = await closing(second)
            assert (code, reason) == (4429, "capacity")
            assert error is not None
            assert error["retry_after_s"] > 0
            await speaks(first)


async def test_overflow_refuses_the_chunk_and_the_rest_is_spoken(tmp_path: Path) -> None:
    config = make_config(tmp_path, max_buffered_input_ms=1_000)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as client:
            await client.configure()
            pcm = noise(8_000)
            await client.send_audio(pcm)
            await client.send_audio(noise(80_000), piece=160_000)
            error = (await client.until("error"))["error"]
            assert error["code"] == "input_buffer_overflow"
            assert error["retryable"]
            await client.send("input_audio_buffer.commit")
            await client.until("response.done")
        assert b"".join(f.audio for f in client.speech()) == pcm


async def test_limits_are_announced_before_they_are_enforced(tmp_path: Path) -> None:
    config = make_config(tmp_path, max_session_s=3.0)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as client:
            await client.configure()
            code, _, error = await closing(client)
    assert code == 4410
    assert error is not None
    assert error["code"] == "max_duration"
    (warning,) = client.of_type("session.expiring")
    assert warning["reason"] == "max_duration"


async def test_a_client_that_gives_no_credit_is_closed(tmp_path: Path) -> None:
    config = make_config(tmp_path, slow_client_s=0.5, max_inflight_ms=200)
    with running(config, load_painting_engine) as server:
        async with client_of(server) as client:
            await client.configure()
            await client.send("playback.update", pts_us=0)
            code, reason, _ = await closing(client)
    assert (code, reason) == (4408, "slow_client")


async def test_failing_engine_fails_one_session(tmp_path: Path) -> None:
    engine = load_painting_engine(make_config(tmp_path))
    open_session = engine.open_session

    def open_broken(avatar: Any, *, seed: int = 0, **options: Any) -> Any:
        session = open_session(avatar, seed=seed, **options)
        if seed == 13:

            def begin(**_: Any) -> Any:
                raise FloatingPointError("not a number")

            session.begin = begin
        return session

    engine.open_session = open_broken
    with running(make_config(tmp_path), lambda _: engine) as server:
        async with client_of(server) as neighbour, client_of(server) as client:
            await neighbour.configure()
            await client.configure(seed=13)
            await client.send_audio(noise(16_000))
            await client.send("input_audio_buffer.commit")
            code, _, error = await closing(client)
            await speaks(neighbour)
    assert code == 1011
    assert error is not None
    assert error["code"] == "engine_failed"
    (done,) = client.of_type("response.done")
    assert done["status"] == "failed"


async def test_draining_lets_what_is_said_come_to_its_end(tmp_path: Path) -> None:
    with running(make_config(tmp_path), load_painting_engine) as server:
        async with client_of(server) as speaking, client_of(server) as idle:
            await speaking.configure()
            await idle.configure()
            await speaking.send_audio(noise(32_000))
            await speaking.send("input_audio_buffer.commit")
            await speaking.until_media(speech=True)
            server.loop.call_soon_threadsafe(server.server.begin_drain)
            idle_code, _, idle_error = await closing(idle)
            code, _, _ = await closing(speaking)
    assert (idle_code, code) == (1012, 1012)
    assert idle_error is not None
    assert idle_error["code"] == "server_draining"
    assert idle.of_type("session.expiring")
    (done,) = speaking.of_type("response.done")
    assert done["status"] == "completed"


async def test_model_that_fails_to_load_is_told(tmp_path: Path) -> None:
    def broken(_: Any) -> Any:
        raise ValueError("weights are missing; run make weights")

    with (
        pytest.raises(AssertionError, match="weights are missing"),
        running(make_config(tmp_path), broken),
    ):
        pass
