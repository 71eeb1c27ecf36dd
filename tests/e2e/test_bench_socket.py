"""The load and soak tools against a real server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from live_server import GALLERY_ID, LiveServer, make_config, running
from stand_in import load_painting_engine

from visavis.server.bench_client import BenchError
from visavis.server.bench_load import run_load
from visavis.server.bench_soak import run_soak


async def test_load_measures_every_session(live: LiveServer) -> None:
    report = await run_load(
        live.ws, sessions=2, seconds=3.0, avatar=None, video="jpeg", pid=os.getpid()
    )
    assert report.failures == ()
    assert report.first_frame_p50_ms is not None
    assert report.first_frame_p50_ms > 0
    assert report.jitter_p95_ms is not None
    assert report.fps_received > 10
    assert report.bytes_per_s > 10_000
    assert report.server_rss_mib is not None


async def test_a_full_server_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    with running(make_config(tmp_path, max_sessions=1), load_painting_engine) as server:
        report = await run_load(
            server.ws, sessions=2, seconds=3.0, avatar=GALLERY_ID, video="none", pid=None
        )
    assert len(report.failures) == 1
    assert report.failures[0].startswith("capacity:")


async def test_soak_counts_every_frame(tmp_path: Path) -> None:
    config = make_config(tmp_path, speech_lead_ms=10_000_000)
    with running(config, load_painting_engine) as server:
        report = await run_soak(
            server.http, minutes=1.0001, realtime=False, video="none", pid=os.getpid()
        )
    assert report.problems == ()
    assert report.frames == report.frames_expected == 1_501
    assert len(report.rss_mib) == 1
    assert report.wall_s < 50


async def test_nobody_there(unused_tcp_port: int) -> None:
    url = f"ws://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(BenchError, match="visavis serve"):
        await run_soak(url, minutes=0.1, realtime=False)
    with pytest.raises(BenchError, match="no session"):
        await run_load(url, sessions=1, seconds=1, avatar="any", video="none", pid=None)
