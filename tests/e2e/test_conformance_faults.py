"""Each check of the conformance kit finds the fault that it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import Alter, Message, faulty, on_event, on_media, refusing, without
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.conformance.address import socket_url
from visavis.server.conformance.model import Outcome, Result
from visavis.server.conformance.peer import Target
from visavis.server.conformance.runner import run_check, select

KEY = "a-key-that-is-long-enough-to-be-one"


def silence(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[32 : 32 + audio_len] = bytes(audio_len)


def no_flags(message: bytearray) -> None:
    message[1] &= ~17


def stopped_clock(message: bytearray) -> None:
    message[8:16] = bytes(8)


def no_pictures(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[28:32] = bytes(4)
    del message[32 + audio_len :]


def later(message: bytearray) -> None:
    pts_us = int.from_bytes(message[8:16], "little") + 40_000
    message[8:16] = pts_us.to_bytes(8, "little")


class KeyframesOnce:
    """Only the first keyframe is marked as one."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, message: Message) -> list[Message]:
        if isinstance(message, str) or not message[1] & 1:
            return [message]
        self.seen += 1
        kept = message if self.seen == 1 else bytes([message[0], message[1] & ~1, *message[2:]])
        return [kept]


def without_configuration(message: Message) -> list[Message]:
    return [] if isinstance(message, bytes) and message[0] == 3 else [message]


def another_width(event: dict[str, Any]) -> list[dict[str, Any]]:
    event["session"]["output"]["width"] += 2
    return [event]


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
    "handshake.unsupported": on_event("error", lambda event: []),
    "session.fps": on_event("error", without("param")),
    "session.size": on_event("error", without("param")),
    "media.size": on_event("session.updated", another_width),
    "media.fps": on_media(no_pictures),
    "media.keyframe": KeyframesOnce(),
    "media.fmp4": without_configuration,
    "cancel.by_id": on_event("response.done", lambda e: [e | {"status": "completed"}]),
    "stats.figures": on_event("session.stats", without("gen_fps")),
    "access.origin": on_event("error", lambda event: []),
    "resume.continues": on_event("session.created", lambda e: [e | {"resume": {"handle": "x.y"}}]),
}


def target_of(url: str, timeout_s: float = 3.0, token: str | None = None) -> Target:
    return Target(url=socket_url(url), avatar_id=GALLERY_ID, timeout_s=timeout_s, token=token)


async def outcome(name: str, url: str, token: str | None = None) -> Result:
    (check,) = select(name)
    return await run_check(check, target_of(url, token=token))


async def passes(name: str, server: LiveServer, token: str | None = None) -> None:
    """The check passes at this server itself."""
    result = await outcome(name, server.ws, token)
    assert result.outcome == "passed", result


async def finds(
    name: str,
    server: LiveServer,
    alter: Alter,
    *,
    token: str | None = None,
    close: int | None = None,
) -> None:
    """The check passes at this server, and fails with the fault."""
    async with faulty(server, alter, close_code=close) as url:
        result = await outcome(name, url, token)
    assert result.outcome == "failed", result
    assert result.message


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found(live: LiveServer, name: str) -> None:
    await finds(name, live, FAULTS[name])


async def test_fragments_in_the_wrong_place_are_found(live: LiveServer) -> None:
    await finds("media.fmp4", live, on_media(later))


def unchanged(message: Message) -> list[Message]:
    return [message]


@pytest.mark.parametrize(
    "name", ["session.unknown_avatar", "handshake.unsupported", "access.origin"]
)
async def test_a_wrong_close_code_is_found(live: LiveServer, name: str) -> None:
    async with faulty(live, unchanged, close_code=1000) as url:
        result = await outcome(name, url)
    assert result.outcome == "failed"
    assert "1000" in result.message


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(tmp_path_factory.mktemp("guarded"), api_keys=f"somebody:{KEY}")
    with running(config, load_painting_engine) as server:
        yield server


@pytest.mark.parametrize("name", ["access.missing", "access.invalid"])
async def test_keys_are_checked_where_there_are_some(guarded: LiveServer, name: str) -> None:
    await passes(name, guarded, KEY)
    await finds(name, guarded, unchanged, token=KEY, close=1000)
    wrong = on_event("error", lambda e: [e | {"error": e["error"] | {"code": "capacity"}}])
    await finds(name, guarded, wrong, token=KEY)


LOADING: list[tuple[int, bool, Outcome]] = [
    (4503, True, "passed"),
    (1011, True, "failed"),
    (4503, False, "failed"),
]


async def test_a_server_without_keys_is_not_blamed(live: LiveServer) -> None:
    assert (await outcome("access.missing", live.ws)).outcome == "skipped"
    assert (await outcome("access.loading", live.ws)).outcome == "skipped"


@pytest.mark.parametrize(("close", "retryable", "expected"), LOADING)
async def test_a_server_that_loads_is_checked(
    close: int, retryable: bool, expected: Outcome
) -> None:
    body = {"type": "capacity_error", "code": "model_loading", "retryable": retryable}
    async with refusing(body, close) as url:
        assert (await outcome("access.loading", url)).outcome == expected


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two places, and room for three to wait."""
    config = make_config(tmp_path_factory.mktemp("small"), max_sessions=2, max_queued_sessions=3)
    with running(config, load_painting_engine) as server:
        yield server


QUEUE_FAULTS = {
    "queue.line": on_event("session.queued", lambda e: [e | {"position": 1}]),
    "queue.full": on_event("error", without("retry_after_s")),
}


@pytest.mark.parametrize("name", QUEUE_FAULTS)
async def test_a_full_server_is_checked(small: LiveServer, name: str) -> None:
    await passes(name, small)
    await finds(name, small, QUEUE_FAULTS[name])


BRIEF = {
    "limits.idle": {"idle_timeout_s": 2.0},
    "limits.duration": {"idle_timeout_s": 2.0, "max_session_s": 2.5},
}


@pytest.mark.parametrize("name", BRIEF)
async def test_the_end_of_a_session_is_checked(tmp_path: Path, name: str) -> None:
    with running(make_config(tmp_path, **BRIEF[name]), load_painting_engine) as server:
        # The portrait is made ready once: these limits have no room for that.
        await outcome("session.mutable", server.ws)
        await passes(name, server)
        await finds(name, server, on_event("session.expiring", lambda event: []))
        late = on_event("session.expiring", lambda e: [e | {"deadline_s": e["deadline_s"] + 60}])
        await finds(name, server, late)
        await finds(name, server, unchanged, close=1000)
