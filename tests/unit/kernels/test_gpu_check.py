"""`make gpu-check` without a GPU: it says so, and its judgement is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import gpu_check  # noqa: E402
import gpu_check_engine  # noqa: E402
import gpu_check_kernels  # noqa: E402
from gpu_check_report import Report  # noqa: E402

from visavis.engine.dit.layout import TokenLayout  # noqa: E402
from visavis.kernels import bench, tune  # noqa: E402
from visavis.kernels.attention.configs import TileConfig  # noqa: E402
from visavis.kernels.timing import Timing  # noqa: E402


def timed(implementation: str, seconds: float) -> Timing:
    return Timing(
        name="attention",
        implementation=implementation,
        shape="one",
        median_s=seconds,
        p90_s=seconds,
        runs=1,
        flops=3e12,
        bytes=6e9,
    )


def test_without_a_gpu_nothing_is_measured_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--output", str(tmp_path / "report.md")]) == 2
    for program in (bench.main, tune.main):
        with pytest.raises(SystemExit) as stopped:
            program([])
        assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("no CUDA device here") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_every_table_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.md"
    status = gpu_check.main(["--dry-run", "--only", "kernels", "14b", "--output", str(output)])
    text = capsys.readouterr().out
    assert status == 0
    assert not output.exists()
    assert "no figure below means anything" in text
    for title in ("correctness", "speed", "measured parts", "projected chunk"):
        assert f"{title}\n" in text
    assert "| attention sdpa, bfloat16, head size 64, bias |" in text
    assert "| CPU (" in text or "| device | CPU" in text


@pytest.mark.parametrize(
    ("timings", "failures"),
    [
        ([timed("triton", 1.05), timed("cudnn", 1.0), timed("flash", 2.0)], 0),
        ([timed("triton", 1.25), timed("cudnn", 1.0), timed("flash", 2.0)], 1),
        # fp8 is not what others are compared with
        ([timed("triton", 1.0), timed("triton-fp8", 0.1), timed("flash", 1.0)], 0),
        ([timed("triton", 1.0)], 0),
        ([timed("flash", 1.0)], 1),
    ],
)
def test_attention_is_judged_by_the_fastest_other_backend(
    timings: list[Timing], failures: int
) -> None:
    report = Report()
    gpu_check_kernels.judge_attention(report, timings, required=True)
    assert len(report.failures) == failures


def test_nan_and_misplaced_infinities_are_wrong() -> None:
    wanted = torch.tensor([1.0, 2.0, float("-inf")])
    error = gpu_check_kernels.Error("x", gpu_check_kernels.relative(wanted.clone(), wanted), 1e-6)
    assert error.right
    for found in ([float("nan"), 2.0, float("-inf")], [1.0, 2.0, 3.0]):
        distance = gpu_check_kernels.relative(torch.tensor(found), wanted)
        assert not gpu_check_kernels.Error("x", distance, 1e-6).right


def test_one_process_attends_to_every_token_with_its_share_of_the_heads() -> None:
    layout = TokenLayout.shard(3, 5, rank=0, world=2)
    exchange = gpu_check_engine.OneRank(2)
    q, k, v = (torch.randn(1, layout.length, 4, 8) for _ in range(3))
    out, routing = exchange.attend(q, k, v, layout, None)
    assert out.shape == (1, 8, 32)
    assert routing is None
    assert exchange.gather(torch.zeros(1, layout.length, 2), layout).shape == (1, 15, 2)


def test_figures_follow_from_the_median() -> None:
    found = timed("triton", 0.5)
    assert (found.tflops, found.gbytes) == (6.0, 12.0)


def test_the_tuner_takes_the_quickest_that_runs() -> None:
    configs = list(tune.candidates(90, 128))
    assert {c.descriptors for c in configs} == {True, False}
    assert not any(c.descriptors for c in tune.candidates(89, 128))
    assert any(c.specialize for c in tune.candidates(100, 128))

    def seconds(config: TileConfig) -> float:
        if config.n == 32:
            raise RuntimeError("out of resource: shared memory")
        return config.n / config.m + config.num_stages

    said: list[str] = []
    chosen = tune.best(configs, seconds, said.append)
    assert (chosen.m, chosen.n, chosen.num_stages) == (128, 64, 2)
    assert any("out of resource" in line for line in said)
    with pytest.raises(RuntimeError, match="none of 1 configurations"):
        tune.best([next(c for c in configs if c.n == 32)], seconds, said.append)
