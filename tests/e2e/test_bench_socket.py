"""The load and soak tools against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.bench_client import BenchError
from visavis.server.bench_load import LoadPlan, run_load
from visavis.server.bench_plot import write_plot
from visavis.server.bench_report import (
    figures,
    print_load,
    write_details_json,
    write_load_json,
)
from visavis.server.bench_soak import run_soak


async def test_load_measures_what_it_says_and_no_more(live: LiveServer, tmp_path: Path) -> None:
    plan = LoadPlan(sessions=2, seconds=6.0, most_sessions=2, video="jpeg")
    said: list[str] = []
    report = await run_load(live.ws, plan, pid=os.getpid(), progress=said.append)
    assert report.failures == ()
    assert said == ["2 sessions for 6 s"]
    found = figures(report)
    assert set(found) == {
        *("first_frame_s", "chunk_s", "interrupt_s", "skew_ms"),
        *("realtime_factor", "sessions_at_slo", "rss_slope_mb_per_min"),
    }
    for name, most in (("first_frame_s", 3.0), ("chunk_s", 2.0), ("skew_ms", 1.0)):
        assert set(found[name]) == {"p50", "p95", "p99"}
        count = getattr(report, name).count
        assert (found[name]["p50"] is None) == (count < 5)
        assert found[name]["p50"] is None or 0 <= found[name]["p50"] < most
    assert found["first_frame_s"]["p99"] is None
    assert "p99 needs 100" in report.reasons["first_frame_s.p99"]
    assert found["rss_slope_mb_per_min"] is None
    assert "a slope needs 60" in report.reasons["rss_slope_mb_per_min"]
    (stage,) = report.stages
    assert stage.measured.utterances >= 4
    assert stage.measured.interrupt.count + stage.measured.completed >= 2
    assert stage.measured.void_frames == 0
    print_load(report)
    write_load_json(report, tmp_path / "load.json")
    assert json.loads((tmp_path / "load.json").read_text()) == found
    write_details_json(report, tmp_path / "details.json")
    assert json.loads((tmp_path / "details.json").read_text())["counts"]["skew_ms"] > 50
    write_plot(report, tmp_path / "load.svg")
    root = ElementTree.parse(tmp_path / "load.svg").getroot()
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) >= 2


async def test_the_ramp_ends_where_the_server_is_full(tmp_path: Path) -> None:
    with running(
        make_config(tmp_path, max_sessions=1, max_queued_sessions=0), load_painting_engine
    ) as server:
        plan = LoadPlan(seconds=4.0, ramp_seconds=3.0, avatar=GALLERY_ID, video="none")
        report = await run_load(server.ws, plan, pid=None)
    assert report.sessions_at_slo == 1
    assert "2 sessions: a session was lost: capacity" in report.reasons["sessions_at_slo"]
    assert report.failures == ()
    assert report.skew_ms.count == 0
    assert "no process to watch" in report.reasons["rss_slope_mb_per_min"]


async def test_soak_counts_every_frame(tmp_path: Path) -> None:
    config = make_config(tmp_path, speech_lead_ms=10_000_000, max_input_rate=10_000)
    with running(config, load_painting_engine) as server:
        report = await run_soak(
            server.http, minutes=1.0001, realtime=False, video="none", pid=os.getpid()
        )
    assert report.problems == ()
    assert report.frames == report.frames_expected == 1_501
    assert len(report.rss_mib) == 1
    assert report.wall_s < 50


async def test_ctrl_c_keeps_what_the_soak_has_heard(live: LiveServer) -> None:
    asyncio.get_running_loop().call_later(3.0, signal.raise_signal, signal.SIGINT)
    report = await run_soak(live.http, minutes=30, realtime=True, video="none")
    assert report.stopped
    assert 10 < report.frames < 200
    assert report.audio_intact
    assert report.problems == (f"stopped by hand after {report.wall_s:.0f} s",)


async def test_nobody_there(unused_tcp_port: int) -> None:
    url = f"ws://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(BenchError, match="visavis serve"):
        await run_soak(url, minutes=0.1, realtime=False)
    with pytest.raises(BenchError, match="no session"):
        await run_load(url, LoadPlan(seconds=1, avatar="any", video="none"), pid=None)
