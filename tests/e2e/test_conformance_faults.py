"""Each check of the conformance kit finds the fault that it is there for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conformance_faults import (
    BRIEF,
    FAULTS,
    GUARDED,
    IMPATIENT,
    MORE,
    QUEUE,
    REFUSING,
    WRONG_CLOSE,
    WRONG_CODE,
    Event,
    Fault,
    never,
    said,
)
from faulty_proxy import faulty, refusing
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.conformance.address import socket_url
from visavis.server.conformance.model import Outcome, Result
from visavis.server.conformance.peer import Target
from visavis.server.conformance.runner import CHECKS, run_check, select

KEY = "a-key-that-is-long-enough-to-be-one"
AT_ONCE = 4


def target_of(url: str, timeout_s: float = 3.0, token: str | None = None) -> Target:
    return Target(url=socket_url(url), avatar_id=GALLERY_ID, timeout_s=timeout_s, token=token)


async def outcome(name: str, url: str, token: str | None = None) -> Result:
    (check,) = select(name)
    return await run_check(check, target_of(url, token=token))


async def passes(name: str, server: LiveServer, token: str | None = None) -> None:
    """The check passes at this server itself."""
    result = await outcome(name, server.ws, token)
    assert result.outcome == "passed", result


async def with_fault(name: str, server: LiveServer, fault: Fault, token: str | None) -> Result:
    async with faulty(
        server,
        fault.alter(),
        close_code=fault.close,
        select=fault.select,
        compression=fault.compression,
    ) as url:
        return await outcome(name, url, token)


async def finds(name: str, server: LiveServer, fault: Fault, token: str | None = None) -> None:
    """The check fails with the fault, and says why."""
    result = await with_fault(name, server, fault, token)
    assert result.outcome == "failed", result
    assert result.message


async def side_by_side(
    faults: Iterable[tuple[str, Fault]], server: LiveServer, expected: Outcome
) -> None:
    """Most of a check's time is waiting: a few at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, fault: Fault) -> Result:
        async with places:
            return await with_fault(name, server, fault, None)

    results = await asyncio.gather(*(one(name, fault) for name, fault in faults))
    assert [result for result in results if result.outcome != expected] == []


def groups(names: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})


@pytest.mark.parametrize("group", groups(FAULTS))
async def test_faults_are_found(live: LiveServer, group: str) -> None:
    faults = [*FAULTS.items(), *MORE]
    await side_by_side([f for f in faults if f[0].startswith(f"{group}.")], live, "failed")


@pytest.mark.slow
@pytest.mark.parametrize("group", groups(FAULTS))
async def test_it_is_the_fault_that_is_found(live: LiveServer, group: str) -> None:
    names = [name for name in FAULTS if name.startswith(f"{group}.")]
    await side_by_side([(name, Fault()) for name in names], live, "passed")


def test_every_check_is_shown_to_fail() -> None:
    shown = [*FAULTS, *IMPATIENT, *GUARDED, *QUEUE, *BRIEF, *REFUSING]
    assert sorted(shown) == sorted(check.name for check in CHECKS)
    assert {name for name, _ in MORE} <= set(FAULTS)


async def test_what_a_fault_changes_is_said(live: LiveServer) -> None:
    result = await with_fault("session.unknown_avatar", live, WRONG_CLOSE, None)
    assert "1000" in result.message
    assert "4404" not in result.message


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(
        tmp_path_factory.mktemp("impatient"),
        slow_client_s=2.0,
        handshake_timeout_s=1.5,
        max_inflight_ms=300,
    )
    with running(config, load_painting_engine) as server:
        yield server


async def test_a_server_that_is_impatient_is_checked(impatient: LiveServer) -> None:
    await side_by_side([(name, Fault()) for name in IMPATIENT], impatient, "passed")
    await side_by_side(IMPATIENT.items(), impatient, "failed")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(tmp_path_factory.mktemp("guarded"), api_keys=f"somebody:{KEY}")
    with running(config, load_painting_engine) as server:
        yield server


@pytest.mark.parametrize("name", GUARDED)
async def test_keys_are_checked_where_there_are_some(guarded: LiveServer, name: str) -> None:
    await passes(name, guarded, KEY)
    for fault in (WRONG_CLOSE, WRONG_CODE):
        await finds(name, guarded, fault, KEY)


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


@pytest.mark.parametrize("name", QUEUE)
async def test_a_full_server_is_checked(small: LiveServer, name: str) -> None:
    await passes(name, small)
    await finds(name, small, QUEUE[name])


def later(event: Event) -> list[Event]:
    return [event | {"deadline_s": event["deadline_s"] + 60}]


@pytest.mark.parametrize("name", BRIEF)
async def test_the_end_of_a_session_is_checked(tmp_path: Path, name: str) -> None:
    with running(make_config(tmp_path, **BRIEF[name]), load_painting_engine) as server:
        # The portrait is made ready once: these limits have no room for that.
        await outcome("session.mutable", server.ws)
        await passes(name, server)
        for change in (never, later):
            await finds(name, server, said("session.expiring", change))
        await finds(name, server, WRONG_CLOSE)
