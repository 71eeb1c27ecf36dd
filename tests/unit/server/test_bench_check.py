"""`visavis bench --check`: the verdict on figures as a run leaves them, and the exit code."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from visavis.cli import build_app
from visavis.server import bench_load
from visavis.server.bench_check import OBJECTIVES, require_checkable, unmet_objectives
from visavis.server.bench_histogram import Histogram
from visavis.server.bench_load import LoadPlan, LoadReport, summarize
from visavis.server.bench_memory import MemoryWatch
from visavis.server.bench_ramp import Stage
from visavis.server.bench_speaker import Measurements

GOOD: dict[str, Any] = {
    "first_frame_s": {"p50": 0.6, "p95": 1.999, "p99": 3.0},
    "chunk_s": {"p50": 0.4, "p95": 9.0, "p99": None},
    "interrupt_s": {"p50": 0.01, "p95": 0.2, "p99": 0.4},
    "skew_ms": {"p50": 0.0, "p95": 45.0, "p99": 80.0},
    "realtime_factor": 0.899,
    "sessions_at_slo": 0,
    "rss_slope_mb_per_min": None,
}


def changed(figure: str, percentile: str | None, value: float | None) -> dict[str, Any]:
    figures = copy.deepcopy(GOOD)
    if percentile is None:
        figures[figure] = value
    else:
        figures[figure][percentile] = value
    return figures


def test_figures_at_their_limits_are_kept() -> None:
    assert unmet_objectives(GOOD, {}) == ()


@pytest.mark.parametrize(
    ("figure", "percentile", "value", "sentence"),
    [
        ("first_frame_s", "p50", 0.601, "first_frame_s.p50 is 0.601 s, at most 0.6 s is wanted"),
        ("first_frame_s", "p95", 2.0, "first_frame_s.p95 is 2 s, below 2 s is wanted"),
        ("interrupt_s", "p95", 0.201, "interrupt_s.p95 is 0.201 s, at most 0.2 s is wanted"),
        ("skew_ms", "p95", 45.1, "skew_ms.p95 is 45.1 ms, at most 45 ms is wanted"),
        ("realtime_factor", None, 0.9, "realtime_factor is 0.9, below 0.9 is wanted"),
        ("realtime_factor", None, float("nan"), "realtime_factor is nan, below 0.9 is wanted"),
    ],
)
def test_each_objective_that_is_missed_is_named_with_what_was_wanted(
    figure: str, percentile: str | None, value: float, sentence: str
) -> None:
    assert unmet_objectives(changed(figure, percentile, value), {}) == (sentence,)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_what_was_not_measured_is_missed_for_its_reason(objective: Any) -> None:
    figures = changed(objective.figure, objective.percentile, None)
    reasons = {objective.name: "3 values were measured, 20 are needed"}
    (sentence,) = unmet_objectives(figures, reasons)
    assert sentence == f"{objective.name} was not measured: 3 values were measured, 20 are needed"


def test_figures_without_the_key_are_no_figures() -> None:
    with pytest.raises(KeyError, match="interrupt_s"):
        unmet_objectives({**{k: v for k, v in GOOD.items() if k != "interrupt_s"}}, {})


def histogram(values: list[float]) -> Histogram:
    found = Histogram()
    for value in values:
        found.record(value)
    return found


def report_with(first_frame_s: float, interrupt_s: float) -> LoadReport:
    measured = Measurements(
        first_frame=histogram([first_frame_s] * 30),
        chunk=histogram([0.3] * 200),
        interrupt=histogram([interrupt_s] * 30),
        skew=histogram([0.0] * 700),
        realtime_factor=histogram([0.5] * 40),
        lateness=histogram([0.001] * 700),
        speech_frames=700,
        pictures=True,
        size="256x256",
    )
    return summarize(LoadPlan(), (Stage(1, 200.0, measured, ()),), MemoryWatch(None))


def bench(monkeypatch: pytest.MonkeyPatch, report: LoadReport, *options: str) -> int:
    """The command's exit code, when a run has left this report."""

    async def recorded(*_args: object, **_kwargs: object) -> LoadReport:
        return report

    monkeypatch.setattr(bench_load, "run_load", recorded)
    with pytest.raises(SystemExit) as ended:
        build_app()(["bench", "ws://127.0.0.1:1", *options])
    return int(ended.value.code or 0)


def test_the_command_ends_with_1_and_names_every_objective_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = report_with(first_frame_s=0.9, interrupt_s=0.5)
    assert bench(monkeypatch, slow, "--check") == 1
    missed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("missed: ")]
    assert len(missed) == 2
    assert "first_frame_s.p50 is 0.9" in missed[0]
    assert "interrupt_s.p95 is 0.5" in missed[1]
    assert bench(monkeypatch, slow) == 0


def test_the_command_ends_with_0_when_all_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench(monkeypatch, report_with(first_frame_s=0.4, interrupt_s=0.01), "--check") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seconds", "20"), "seconds=20 has room for"),
        (("--video", "none"), "video='none'"),
    ],
)
def test_a_run_that_could_not_be_judged_is_refused_before_it_begins(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: str,
) -> None:
    assert bench(monkeypatch, report_with(0.4, 0.01), "--check", *options) == 2
    assert words in capsys.readouterr().err


def test_the_remedy_that_the_refusal_names_is_one() -> None:
    require_checkable(LoadPlan(seconds=60.0))
    require_checkable(LoadPlan(seconds=30.0, sessions=3, most_sessions=3))
