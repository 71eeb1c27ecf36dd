"""The conformance kit: our server passes it, and what it says is fit to be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import faulty, on_event
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.conformance.address import first_avatar, socket_url
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
from visavis.server.engine_load import EngineLoad

SKIPPED = {"access.missing", "access.loading", "limits.idle", "limits.duration"}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with short limits, so that they can be waited for."""
    folder = tmp_path_factory.mktemp("hasty")
    config = make_config(
        folder, slow_client_s=4.0, handshake_timeout_s=2.0, max_inflight_ms=600, max_sessions=2
    )
    with pytest.MonkeyPatch.context() as patch:
        # Places may not come and go with what the machine does beside the checks.
        patch.setattr(EngineLoad, "observe", lambda *_, **__: None)
        with running(config, load_painting_engine) as server:
            yield server


def target_of(url: str, timeout_s: float = 20.0) -> Target:
    return Target(url=socket_url(url), avatar_id=GALLERY_ID, timeout_s=timeout_s)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_our_server_passes(hasty: LiveServer) -> None:
    results = await run_checks(CHECKS, target_of(hasty.ws), lambda result: None)
    assert {r.name: r.message for r in results if r.outcome == "failed"} == {}
    # It has no keys, long limits, and a model that is there; test_conformance_faults has those.
    skipped = {r.name: r.message for r in results if r.outcome == "skipped"}
    assert set(skipped) == SKIPPED, skipped


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
    with pytest.raises(ValueError, match="there are access, cancel"):
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
