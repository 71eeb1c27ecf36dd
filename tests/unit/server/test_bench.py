"""The measuring tools: stage clocks on a tiny engine, playout arithmetic, soak verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.base import DecodedFrames
from visavis.engine.costs import ChunkCosts
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.model_parts import ModelParts
from visavis.engine.registry import model_spec
from visavis.server import bench
from visavis.server.bench_chunks import Playout
from visavis.server.bench_client import BenchError, rss_mib, socket_url
from visavis.server.bench_soak import SoakReport
from visavis.server.engine_load import EngineLoad, expected_slowness
from visavis.server.picture_costs import PictureCosts


class GreyCodec:
    """Grey frames of 16x16 pixels, around which the real transformer and session work."""

    latent_channels, cond_channels = 24, 20
    exact_is_read_from_latents = False
    latent_size, frame_size = (4, 4), (16, 16)

    def reference(self, portrait: object) -> None:
        return None

    def cond_latents(self, reference: None, chunk_frames: int) -> Tensor:
        return torch.zeros(20, 1 + (chunk_frames - 1) // 4, 4, 4)

    def image_tokens(self, reference: None) -> Tensor:
        return torch.zeros(16, 256)

    def initial_motion(self, reference: None) -> Tensor:
        return torch.zeros(24, 1, 4, 4)

    def decode(
        self, latents_CTHW: Tensor, reference: None, *, skip_frames: int = 0
    ) -> Iterator[DecodedFrames]:
        frames = 1 + 4 * (latents_CTHW.shape[1] - 1) - skip_frames
        for _ in range(frames):
            grey = torch.full((1, 16, 16, 3), 128, dtype=torch.uint8)
            yield DecodedFrames(grey, grey)

    def join(self, latents_CTHW: Tensor, motion_latents: Tensor) -> Tensor:
        return latents_CTHW

    def motion_latents(self, frames: Tensor, reference: None) -> Tensor:
        return torch.zeros(24, 2, 4, 4)


@pytest.fixture(scope="module")
def report() -> bench.EngineReport:
    spec = model_spec("test")
    dit = FlashTalkDiT(spec.dit).eval().requires_grad_(False)
    cpu = torch.device("cpu")
    text = torch.zeros(1, spec.dit.text_len, spec.dit.text_dim)
    parts = ModelParts(dit=dit, codec=GreyCodec(), front_end=MelFrontEnd(), text=text)
    engine = AvatarEngine("test", parts, device=cpu, dtype=torch.float32)
    return bench.measure_engine(engine, 2, load_s=1.0)


def test_every_stage_of_every_chunk_length_is_timed(report: bench.EngineReport) -> None:
    assert [chunk.chunk_frames for chunk in report.chunks] == [9, 13, 17, 33]
    for chunk in report.chunks:
        for stage in bench.STAGES:
            assert chunk.stages[stage].p50_s > 0, stage
        whole = chunk.stages[bench.WHOLE]
        assert whole.p50_s <= whole.p95_s
        assert sum(chunk.stages[s].p50_s for s in bench.STAGES) < 1.5 * whole.p95_s
    longest = report.chunks[-1]
    assert longest.plays_s == 1.12
    assert report.chunk_realtime_factor == longest.stages[bench.WHOLE].p50_s / 1.12
    assert report.first_frame.p50_s > 0
    assert report.peak_rss_mib > 50


def test_the_report_is_printed_and_written(
    report: bench.EngineReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.print_table(report)
    out = capsys.readouterr().out
    for word in (*bench.STAGES, "chunk_realtime_factor", "first frame", "peak memory"):
        assert word in out
    bench.write_json(report, tmp_path / "bench.json")
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["chunk_realtime_factor"] == report.chunk_realtime_factor
    assert figures["chunks"][2]["stages"]["dit"]["p50_s"] > 0


def test_one_chunk_says_nothing() -> None:
    with pytest.raises(ValueError, match="chunks=1"):
        bench.measure("test", None, "cpu", None, 1)


def test_babble_is_repeatable_int16() -> None:
    assert bench.babble(1_000).dtype == np.int16
    assert np.array_equal(bench.babble(1_000, seed=3), bench.babble(1_000, seed=3))
    assert not np.array_equal(bench.babble(1_000, seed=3), bench.babble(1_000, seed=4))


def test_a_player_waits_for_late_frames_once() -> None:
    playout = Playout(buffer_s=0.2)
    assert playout.arrive(0.0, 10.0) == 0
    assert playout.arrive(0.04, 10.23) == 0
    assert playout.arrive(0.08, 10.58) == pytest.approx(0.3)
    # The clock has stopped for 0.3 s, so that the next one is in time.
    assert playout.arrive(0.12, 10.62) == pytest.approx(0.0, abs=1e-9)
    assert playout.position_s(10.68) == pytest.approx(0.18)


def soak(**changes: object) -> SoakReport:
    fields: dict[str, object] = {
        "speech_s": 180.0,
        "wall_s": 60.0,
        "frames": 4_500,
        "frames_expected": 4_500,
        "audio_intact": True,
        "status": "completed",
        "rss_mib": (400.0, 405.0, 404.0),
    }
    return SoakReport(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"frames": 4_499}, "4500 were expected"),
        ({"audio_intact": False}, "not what was sent"),
        ({"status": "failed"}, "ended as failed"),
        ({"rss_mib": (400.0, 600.0)}, "grew by 200 MiB"),
        ({"rss_mib": ()}, ""),
    ],
)
def test_a_soak_says_what_is_wrong(changes: dict[str, object], words: str) -> None:
    problems = soak(**changes).problems
    assert len(problems) == bool(words)
    assert words in "".join(problems)


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "ws://h:1/v1/realtime/avatar"])
def test_any_address_leads_to_the_socket(url: str) -> None:
    assert socket_url(url) == "ws://h:1/v1/realtime/avatar"


def test_a_socket_elsewhere_is_where_it_is_said_to_be() -> None:
    """Behind a gateway, for instance; the conformance suite reads addresses in the same way."""
    assert socket_url("https://h/gateway/avatar?key=1") == "wss://h/gateway/avatar?key=1"


def test_other_addresses_are_refused() -> None:
    with pytest.raises(BenchError, match="write ws://HOST"):
        socket_url("h:1")


def test_memory_of_a_process_that_is_not_there() -> None:
    assert rss_mib(2**22 + 1) is None


def test_sessions_at_a_time_are_those_that_a_server_admits(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = ChunkCosts(
        steps_s={length: {1: 0.01} for length in (9, 13, 17, 33)},
        prepare_s=0.008,
        first_frame_s=0.0,
        frame_s=0.0,
    )
    size = (64, 64)
    engine: Any = SimpleNamespace(
        num_steps=4, costs=None, frame_size=size, frame_sizes=(size,), device=torch.device("cpu")
    )

    def warm_up() -> None:
        engine.costs, engine.num_steps = costs, 2

    engine.warm_up = warm_up
    pictures = PictureCosts({"h264": {size: 0.004}}, size)
    monkeypatch.setattr(bench, "measure_engine_pictures", lambda *_: pictures)
    load = EngineLoad(
        lambda: costs, num_steps=2, pictures=pictures, slowness=expected_slowness("cpu")
    )
    # 1.25 * (8 + 2 * 10) / 480 of real time for chunks, a tenth for their pictures.
    assert bench.admitted(engine) == load.capacity == 4
    assert engine.num_steps == 4
