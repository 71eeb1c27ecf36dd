"""The mixed soak against a real server, for some seconds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.bench_client import BenchError, socket_url
from visavis.server.bench_mixed import MixedPlan, run_mixed
from visavis.server.bench_visitor import Tally, Visitor

# Twelve seconds are enough for a visit or two each.
PLAN = MixedPlan(minutes=0.2, visitors=2, video="jpeg", rest_s=(0.2, 0.6))


async def test_visitors_come_and_go_and_nothing_is_amiss(live: LiveServer) -> None:
    said: list[str] = []
    report = await run_mixed(live.http, PLAN, pid=os.getpid(), progress=said.append)
    assert report.problems == ()
    tally = report.tally
    assert tally.visits >= 2
    assert tally.completed >= 2
    assert tally.resumed >= 1
    assert tally.interrupted >= 1
    assert tally.rested_s > 0
    assert tally.frames > 100
    assert said
    assert report.rss_slope_mb_per_min is None
    assert "a slope needs 60" in report.slope_reason


async def test_ctrl_c_keeps_what_was_measured(live: LiveServer) -> None:
    def tell(_: str) -> None:
        raise AssertionError("a minute has not passed")

    plan = MixedPlan(minutes=30, visitors=1, video="jpeg")
    asyncio.get_running_loop().call_later(3.0, signal.raise_signal, signal.SIGINT)
    report = await run_mixed(live.http, plan, pid=os.getpid(), progress=tell)
    assert report.stopped
    assert report.tally.frames > 10
    assert report.problems[0].startswith("stopped by hand after 3 s")


async def test_it_notices_a_server_that_offers_no_resume(tmp_path: Path) -> None:
    config = make_config(tmp_path, resume_ttl_s=0.0)
    with running(config, load_painting_engine) as server:
        url = socket_url(server.ws)
        visitor = Visitor(url, Tally(), random.Random(0), rest_s=(0.1, 0.2))
        async with visitor.session(avatar=GALLERY_ID, video="none"):
            with pytest.raises(BenchError, match="the server offers no resume"):
                await visitor.do("reconnect")


async def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(BenchError, match="visavis serve"):
        await run_mixed(f"ws://127.0.0.1:{unused_tcp_port}", PLAN, pid=None)
