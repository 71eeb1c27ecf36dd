"""The mixed soak: what visitors do, what it says is wrong, and that it sees a server misbehave."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from visavis.cli import build_app
from visavis.server.bench_mixed import MixedPlan, MixedReport, print_mixed, write_mixed_json
from visavis.server.bench_visitor import ACTS, MAX_FAILURES, Tally, visit_plan


def report(slope: float | None = 0.1, **changes: object) -> MixedReport:
    fields: dict[str, object] = {"visits": 90, "completed": 200, "interrupted": 99, "resumed": 95}
    return MixedReport(
        wall_s=1800.0,
        tally=Tally(**(fields | changes)),  # type: ignore[arg-type]
        rss_mib=500.0,
        rss_slope_mb_per_min=slope,
        slope_reason="" if slope is not None else "30 s were watched, a slope needs 60",
    )


def test_every_visit_has_all_acts_and_is_repeatable() -> None:
    one, other = random.Random(7), random.Random(7)
    plans = [visit_plan(one) for _ in range(20)]
    assert plans == [visit_plan(other) for _ in range(20)]
    assert all(set(plan) == set(ACTS) for plan in plans)
    assert len({tuple(plan) for plan in plans}) > 10


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (report(), ""),
        (report(slope=None), ""),
        (report(slope=-5.0), ""),
        (report(damaged=2), "2 utterances came back other than they were said"),
        (report(completed=0), "no utterance was completed"),
        (report(num_failures=3, failures=["say: lost", "say: lost"]), "3 visits came to a bad end"),
        (replace(report(), stopped=True), "stopped by hand after 1800 s"),
        (report(slope=1.2), "memory grows by 1.20 MB/min, 34 MiB over the run"),
    ],
)
def test_it_says_what_is_wrong(found: MixedReport, words: str) -> None:
    assert len(found.problems) == bool(words)
    assert words in "".join(found.problems)


def test_failures_are_counted_and_the_first_are_kept() -> None:
    tally = Tally()
    for number in range(1000):
        tally.fail(f"say: {number}")
    assert tally.num_failures == 1000
    assert len(tally.failures) == MAX_FAILURES


def test_the_report_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_mixed(report())
    print_mixed(report(slope=None, damaged=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "200 utterances completed, 99 interrupted, 95 connections lost and resumed" in said
    assert "memory slope: 0.10 MB/min" in said
    assert "not told: 30 s were watched" in said
    assert "problem: 1 utterances" in said
    write_mixed_json(report(damaged=1), tmp_path / "mixed.json")
    figures = json.loads((tmp_path / "mixed.json").read_text())
    assert figures["rss_slope_mb_per_min"] == 0.1
    assert figures["tally"]["resumed"] == 95
    assert len(figures["problems"]) == 1


@pytest.mark.parametrize("changes", [{"minutes": 0.0}, {"visitors": 0}])
def test_plans_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        MixedPlan(**({"minutes": 1.0} | changes))  # type: ignore[arg-type]


def test_the_command_refuses_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "no" / "mixed.json")
    with pytest.raises(SystemExit) as ended:
        build_app()(["bench", "soak", "ws://127.0.0.1:1", "--mixed", "--json", nowhere])
    assert ended.value.code == 2
    assert "there is no folder" in capsys.readouterr().err
