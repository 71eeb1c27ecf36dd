"""The conformance kit: our server passes it, and a server with one fault fails where it should."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from visavis.server.bench_client import first_avatar
from visavis.server.conformance.model import Result
from visavis.server.conformance.peer import Target
from visavis.server.conformance.runner import (
    CHECKS,
    not_ready,
    report_json,
    run_check,
    run_checks,
    select,
)
from visavis.server.conformance_cli import socket_url

Message = str | bytes
Alter = Callable[[Message], list[Message]]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with short limits, so that they can be waited for."""
    folder = tmp_path_factory.mktemp("hasty")
    config = make_config(folder, slow_client_s=4.0, handshake_timeout_s=2.0, max_inflight_ms=600)
    with running(config, load_painting_engine) as server:
        yield server


def target_of(url: str, timeout_s: float = 20.0) -> Target:
    return Target(url=socket_url(url), avatar_id=GALLERY_ID, timeout_s=timeout_s)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_our_server_passes(hasty: LiveServer) -> None:
    results = await run_checks(CHECKS, target_of(hasty.ws), lambda result: None)
    assert {r.name: r.message for r in results if r.outcome != "passed"} == {}


@asynccontextmanager
async def faulty(
    server: LiveServer, alter: Alter, *, close_code: int | None = None
) -> AsyncIterator[str]:
    """The same server behind a proxy that changes what it says; yields its address."""

    async def pass_on(client: ServerConnection) -> None:
        async with connect(
            socket_url(server.ws),
            subprotocols=["avatar.v1"],  # type: ignore[list-item]
            compression=None,
            max_size=None,
        ) as upstream:

            async def up() -> None:
                async for message in client:
                    await upstream.send(message)
                await upstream.close()

            sending = asyncio.create_task(up())
            with contextlib.suppress(ConnectionClosed):
                async for message in upstream:
                    for altered in alter(message):
                        await client.send(altered)
            code = upstream.close_code or 1006
            await client.close(close_code or (1011 if code == 1006 else code))
            sending.cancel()

    async with serve(
        pass_on,
        "127.0.0.1",
        0,
        subprotocols=["avatar.v1"],  # type: ignore[list-item]
        compression=None,
        max_size=None,
    ) as proxy:
        yield f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"


def on_event(kind: str, change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Alter:
    def alter(message: Message) -> list[Message]:
        if isinstance(message, bytes):
            return [message]
        event = json.loads(message)
        return [json.dumps(e) for e in change(event)] if event["type"] == kind else [message]

    return alter


def on_media(change: Callable[[bytearray], None]) -> Alter:
    def alter(message: Message) -> list[Message]:
        if isinstance(message, str):
            return [message]
        changed = bytearray(message)
        change(changed)
        return [bytes(changed)]

    return alter


def without(name: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    def change(event: dict[str, Any]) -> list[dict[str, Any]]:
        event.get("error", event).pop(name, None)
        return [event]

    return change


def silence(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[32 : 32 + audio_len] = bytes(audio_len)


def no_flags(message: bytearray) -> None:
    message[1] &= ~17


def stopped_clock(message: bytearray) -> None:
    message[8:16] = bytes(8)


FAULTS = {
    "response.queue": on_event("response.done", lambda event: [event, event]),
    "response.order": on_event("response.started", lambda event: []),
    "response.audio": on_media(silence),
    "media.idle": on_media(stopped_clock),
    "cancel.speaking": on_media(no_flags),
    "cancel.prompt": on_event("output.cleared", lambda event: []),
    "handshake.greeting": on_event("session.created", without("limits")),
    "malformed.shape": on_event("error", without("retryable")),
    "events.ids": on_event("input_audio_buffer.committed", without("event_id")),
    "resume.continues": on_event("session.created", lambda e: [e | {"resume": {"handle": "x.y"}}]),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found(live: LiveServer, name: str) -> None:
    (check,) = select(name)
    async with faulty(live, FAULTS[name]) as url:
        result = await run_check(check, target_of(url, timeout_s=3.0))
    assert result.outcome == "failed", result
    assert result.message


async def test_a_wrong_close_code_is_found(live: LiveServer) -> None:
    (check,) = select("session.unknown_avatar")
    async with faulty(live, lambda message: [message], close_code=1000) as url:
        result = await run_check(check, target_of(url))
    assert result.outcome == "failed"
    assert "1000" in result.message


async def test_a_proxy_without_a_fault_passes(live: LiveServer) -> None:
    (check,) = select("response.order")
    async with faulty(live, lambda message: [message]) as url:
        result = await run_check(check, target_of(url))
    assert result.outcome == "passed", result


async def test_a_server_that_offers_no_resume_is_not_blamed(live: LiveServer) -> None:
    (check,) = select("resume.closed")
    alter = on_event("session.created", lambda event: [event | {"resume": None}])
    async with faulty(live, alter) as url:
        result = await run_check(check, target_of(url))
    assert result.outcome == "skipped"


async def test_nobody_there_is_a_failure() -> None:
    (check,) = select("events.ping")
    result = await run_check(check, target_of("ws://127.0.0.1:9", timeout_s=2.0))
    assert result.outcome == "failed"
    assert "127.0.0.1:9" in result.message


async def test_a_server_that_serves_nobody_is_not_checked(live: LiveServer, tmp_path: Path) -> None:
    assert await not_ready(target_of(live.ws)) is None
    why = await not_ready(target_of("ws://127.0.0.1:9", timeout_s=2.0))
    assert why is not None
    assert "127.0.0.1:9" in why
    locked = make_config(tmp_path, api_keys="somebody:a-key-that-is-long-enough-to-be-one")
    with running(locked, load_painting_engine) as server:
        why = await not_ready(target_of(server.ws))
    assert why is not None
    assert "missing_token" in why


def test_every_check_names_a_section_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    headings = {line.lstrip("# ") for line in text.splitlines() if line.startswith("##")}
    assert {check.section for check in CHECKS} <= headings
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_the_report_counts() -> None:
    result = Result(
        name="a.b", section="Errors", text="t", outcome="failed", message="m", seconds=0.1
    )
    report = json.loads(report_json(target_of("ws://host"), [result]))
    assert (report["passed"], report["failed"], report["skipped"]) == (0, 1, 0)
    assert report["checks"][0]["name"] == "a.b"


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="there are cancel"):
        select("nothing")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://host:1", "ws://host:1/v1/realtime/avatar"),
        ("https://host", "wss://host/v1/realtime/avatar"),
        ("wss://host/other/path", "wss://host/other/path"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert socket_url(url) == expected


def test_an_address_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="ws://"):
        socket_url("ftp://host")


async def test_the_first_avatar_is_asked_for(live: LiveServer) -> None:
    assert await asyncio.to_thread(first_avatar, live.ws, None, 5.0) == GALLERY_ID
