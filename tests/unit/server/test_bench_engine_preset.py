"""The preset's chunk is the pipeline's, and its report adds up."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.codec.wan import to_bytes
from visavis.server import bench_engine_preset as preset
from visavis.server.bench_engine_preset import PresetBench, Stopwatch


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"dim": 32, "ffn_dim": 32, "num_layers": 1, "num_heads": 2, "image_dim": 8}
    audio = {"audio_layers": 2, "audio_channels": 8, "audio_hidden": 8, "audio_dim": 16}
    lengths = {"image_tokens": 4, "text_len": 24, "audio_tokens": 2}
    monkeypatch.setattr(preset, "DIT", replace(preset.DIT, **small, **audio, **lengths))
    monkeypatch.setattr(preset, "VAE", {"base_dim": 2, "num_res_blocks": 1})
    monkeypatch.setattr(preset, "FRAME_SIZE", (32, 32))


def test_preset_has_the_sizes_that_were_timed() -> None:
    with torch.device("meta"):
        dit = preset.FlashTalkDiT(preset.DIT)
        vae = preset.WanNetwork(preset.WanConfig(**preset.VAE))
    millions = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (dit, vae)]
    assert [round(size, 1) for size in millions] == [103.1, 14.2]


@pytest.mark.usefixtures("tiny")
def test_timed_chunks_are_those_of_the_pipeline() -> None:
    bench = PresetBench()
    for seed in (1, 2):  # the second chunk starts from what the first handed over
        state = bench.state
        torch.manual_seed(seed)
        watch = Stopwatch()
        shown = bench.chunk(watch)
        assert all(seconds > 0 for seconds in watch.wall.values())
        torch.manual_seed(seed)
        size = (WINDOW_REACH + 33, preset.DIT.audio_layers, preset.DIT.audio_channels)
        features = torch.randn(size).numpy()
        frames = list(
            bench.pipeline.generate_chunk(state, features, bench.conditions, shown=28, num_steps=4)
        )
        assert np.array_equal(np.stack([f.pixels for f in frames]), to_bytes(shown).numpy())
        last = frames[-1].next_state
        assert last is not None
        torch.testing.assert_close(last.motion, bench.state.motion, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_report_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        report = preset.measure_preset(None, 1, 2, warm_up=0)
    finally:
        torch.set_num_threads(threads)
    preset.print_preset(report)
    assert "motion encode" in capsys.readouterr().out
    file = tmp_path / "report.json"
    preset.write_preset_json(report, file)
    figures = json.loads(file.read_text())
    assert len(figures["runs"]) == 2
    for run in figures["runs"]:
        assert run["total"] == pytest.approx(sum(run[stage] for stage in preset.STAGES))
    assert figures["frames_per_second"] == pytest.approx(28 / figures["seconds"]["total"])


@pytest.mark.usefixtures("tiny")
def test_transformer_without_its_caches_gives_the_same() -> None:
    bench = PresetBench()
    bench.chunk(Stopwatch())  # two motion latents are given
    found = bench.beside(1)
    assert found.dit is not None
    assert found.dit.difference < 1e-4
    assert min(found.dit.ours, found.dit.theirs) > 0


@pytest.mark.usefixtures("tiny")
def test_bfloat16_is_measured_against_float32(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        report = preset.measure_preset(None, 1, 1, warm_up=0, dtype=torch.bfloat16)
    finally:
        torch.set_num_threads(threads)
    found = report.against_float32
    assert found is not None
    assert 0 < found.velocity_rms < 0.1
    assert found.velocity_rms < found.velocity_max < 1
    # Random weights amplify what rounding does; -1 and 1 are the ends of what a pixel can be.
    assert 0 < found.decode_rms < found.decode_max <= 2
    assert found.decode_rms < 0.2
    assert 0 < found.encode_rms < found.encode_max < 0.5
    preset.print_preset(report)
    assert "bfloat16 less float32" in capsys.readouterr().out


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="chunks=0"):
        preset.measure_preset(None, 1, 0)
