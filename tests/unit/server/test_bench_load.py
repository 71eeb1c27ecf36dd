"""The load test's arithmetic: histograms, chunks told from arrivals, verdicts, refusals."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.bench_chunks import ChunkTracker, SkewMeter
from visavis.server.bench_client import Arrival, BenchError
from visavis.server.bench_histogram import NEEDED, Histogram
from visavis.server.bench_load import LoadPlan, summarize
from visavis.server.bench_memory import MB_PER_MIB, MemoryWatch
from visavis.server.bench_plot import (
    HEIGHT,
    curve_points,
    last_percentile,
    render_plot,
    y_of,
)
from visavis.server.bench_ramp import Stage, cautious_p95, missed_objectives
from visavis.server.bench_report import figures
from visavis.server.bench_speaker import Measurements, Speaker, Utterance, _Said, plan
from visavis.server.protocol import Frame, Header, Kind


def histogram(values: list[float], scale: float = 1e6) -> Histogram:
    found = Histogram(scale)
    for value in values:
        found.record(value)
    return found


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.sampled_from([50, 95, 99, 100]))
def test_quantiles_are_within_a_thousandth(values: list[float], percent: int) -> None:
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert histogram(values).quantile(percent) == pytest.approx(exact, rel=1.1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "missing"),
    [(4, {"p50", "p95", "p99"}), (5, {"p95", "p99"}), (20, {"p99"}), (99, {"p99"}), (100, set())],
)
def test_percentiles_of_too_few_values_are_refused(count: int, missing: set[str]) -> None:
    found = histogram([0.1] * count).percentiles()
    assert {name for name, value in found.values.items() if value is None} == missing
    assert set(found.reasons) == missing
    assert all(f"{count} values" in reason for reason in found.reasons.values())


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_only_numbers_from_zero_on_are_recorded(value: float) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        Histogram().record(value)


def test_the_curve_ends_at_the_last_value_that_was_seen() -> None:
    curve = list(histogram([0.0, 0.0, 0.5, 1.0]).curve())
    assert [percent for percent, _ in curve] == [50, 75, 100]
    assert [seconds for _, seconds in curve] == pytest.approx([0.0, 0.5, 1.0], rel=1e-3)


def test_chunks_are_told_from_the_pauses_between_them() -> None:
    tracker = ChunkTracker()
    chunks = []
    start_s, compute_s = 100.0, 0.3
    for first in (0, 12, 24):
        ready_s = start_s + (first + 12) * 0.04 + compute_s
        for index in range(first, first + 12):
            due_s = start_s + (index + 1) * 0.04
            chunks.append(tracker.add(due_s, ready_s + 0.005 * (index - first)))
    chunks.append(tracker.finish())
    found = [chunk for chunk in chunks if chunk is not None]
    assert [chunk.frames for chunk in found] == [12, 12, 12]
    for chunk in found:
        assert chunk.seconds == pytest.approx(0.355)
    assert tracker.finish() is None


class StatsOnly:
    """A client that is told of frames of speech ("frame") and of the server's figures."""

    def __init__(self, *told: float | None | str) -> None:
        self._told = told

    async def arrivals(self) -> AsyncIterator[Arrival]:
        header = Header(kind=Kind.MEDIA, response=1, audio_len=1280)
        for number, told in enumerate(self._told):
            item: Any = {"type": "session.stats", "rtf": told, "degraded": []}
            if told == "frame":
                item = Frame(replace(header, pts_us=40_000 * number), bytes(1280), b"")
            yield Arrival(100.0 + 0.04 * number, 100, item)


@pytest.mark.parametrize(
    ("told", "factors"),
    [
        (("frame", 0.5, 0.5, "frame", "frame", 0.7), [0.5, 0.7]),
        ((0.3, None, 0.3), []),
        (("frame", None, 0.4), []),
    ],
)
async def test_the_factor_is_what_the_server_tells_of_speech(
    told: tuple[float | None | str, ...], factors: list[float]
) -> None:
    measured = Measurements()
    client: Any = StatsOnly(*told)
    speaker = Speaker(client, measured, video="none", number=0)
    speaker._said[1] = _Said(Utterance(99.0, 2.0, None), 99.04)
    with pytest.raises(BenchError, match="ended"):
        await speaker._listen()
    assert measured.realtime_factor.count == len(factors)
    if factors:
        assert measured.realtime_factor.quantile(100) == pytest.approx(max(factors), rel=1e-3)


def test_a_stage_without_a_frame_of_speech_is_not_a_good_one() -> None:
    measured = good()
    measured.speech_frames = 0
    assert missed_objectives(measured) == ("not a frame of speech came",)


def test_skew_shows_pictures_left_out_and_sound_that_runs_away() -> None:
    meter = SkewMeter(16_000)
    assert meter.add(640, has_picture=True) == 0
    assert meter.add(640, has_picture=False) == pytest.approx(0.04)
    assert meter.add(640, has_picture=False) == pytest.approx(0.08)
    assert meter.add(640, has_picture=True) == pytest.approx(0)
    drifting = SkewMeter(16_000)
    skews = [drifting.add(656, has_picture=True) for _ in range(11)]
    assert skews[-1] == pytest.approx(0.01)


def test_a_talk_is_repeatable_and_follows_its_own_clock() -> None:
    talk = list(plan(10.0, 60.0, seed=3))
    assert talk == list(plan(10.0, 60.0, seed=3))
    assert talk != list(plan(10.0, 60.0, seed=4))
    for before, after in itertools.pairwise(talk):
        said_s = before.length_s if before.cut_s is None else before.cut_s
        assert before.start_s + said_s < after.start_s
    assert 0 < sum(u.cut_s is None for u in talk) < len(talk)


def good() -> Measurements:
    return Measurements(
        first_frame=histogram([0.4] * 30),
        chunk=histogram([0.3] * 200),
        interrupt=histogram([0.01] * 30),
        skew=histogram([0.0] * 700),
        realtime_factor=histogram([0.5] * 40),
        lateness=histogram([0.001] * 700),
        speech_frames=700,
        pictures=True,
    )


def test_a_good_stage_misses_nothing() -> None:
    assert missed_objectives(good()) == ()


@pytest.mark.parametrize(
    ("field", "bad", "words"),
    [
        ("first_frame", [2.5] * 3, "first frame p95 2.5 s"),
        ("realtime_factor", [1.2] * 3, "real-time factor p95 1.2,"),
        ("interrupt", [0.3] * 3, "interrupt p95"),
        ("skew", [0.08] * 60, "skew p95"),
    ],
)
def test_a_stage_says_which_objective_it_missed(field: str, bad: list[float], words: str) -> None:
    measured = good()
    for value in bad:
        getattr(measured, field).record(value)
    (missed,) = missed_objectives(measured)
    assert words in missed


def test_few_values_break_an_objective_with_their_largest() -> None:
    assert cautious_p95(histogram([0.1] * 18 + [9.0])) == pytest.approx(9, rel=1e-3)
    assert cautious_p95(histogram([0.1] * 99 + [9.0])) == pytest.approx(0.1, rel=1e-3)
    assert cautious_p95(Histogram()) is None


def test_stalls_and_lost_sessions_break_a_stage_too() -> None:
    measured = good()
    measured.stalled_s = 1.0
    measured.failures = ["capacity: full", "capacity: full"]
    measured.void_frames = 2
    missed = missed_objectives(measured)
    assert len(missed) == 3
    assert "a session was lost: capacity: full" in missed
    assert "3.6 % of the speech" in "".join(missed)


def stages(*missed: str) -> tuple[Stage, ...]:
    return tuple(
        Stage(sessions, 30.0, good(), (words,) if words else ())
        for sessions, words in enumerate(missed, start=1)
    )


@pytest.mark.parametrize(
    ("missed", "at_slo", "reason"),
    [
        (("", "", "too slow"), 2, "3 sessions: too slow"),
        (("too slow",), 0, "too slow"),
        (("", ""), 2, "at least; more were not tried"),
    ],
)
def test_sessions_within_the_objectives(
    missed: tuple[str, ...], at_slo: int | None, reason: str
) -> None:
    report = summarize(LoadPlan(), stages(*missed), MemoryWatch(None))
    assert report.sessions_at_slo == at_slo
    assert reason in report.reasons["sessions_at_slo"]


def make_late(stage: Stage) -> None:
    for _ in range(100):
        stage.measured.lateness.record(0.5)


def test_what_a_late_generator_measured_is_not_printed() -> None:
    (stage,) = stages("too slow")
    make_late(stage)
    report = summarize(LoadPlan(), (stage,), MemoryWatch(None))
    found = figures(report)
    del found["rss_slope_mb_per_min"]
    for name, value in found.items():
        if isinstance(value, dict):
            assert value == {"p50": None, "p95": None, "p99": None}
            reason = report.reasons[f"{name}.p50"]
        else:
            assert value is None
            reason = report.reasons[name]
        # Not a word of values that are too few, or of chunks that are too short.
        assert "generator itself was 500 ms late" in reason
        assert "values" not in reason
    assert render_plot(report).count("<polyline") == 0


def test_a_stage_that_a_late_generator_spoilt_says_so() -> None:
    good_stage, bad_stage = stages("", "too slow")
    make_late(bad_stage)
    report = summarize(LoadPlan(), (good_stage, bad_stage), MemoryWatch(None))
    assert report.sessions_at_slo == 1
    assert "too slow; but the generator" in report.reasons["sessions_at_slo"]
    assert report.first_frame_s.values["p50"] is not None


def test_a_factor_that_was_hardly_ever_told_is_not_printed() -> None:
    (stage,) = stages("")
    stage.measured.realtime_factor = histogram([0.5] * 4)
    report = summarize(LoadPlan(), (stage,), MemoryWatch(None))
    assert report.realtime_factor is None
    assert "4 times" in report.reasons["realtime_factor"]


def test_the_plan_gives_every_percentile_its_values() -> None:
    talk = list(plan(0.0, LoadPlan().seconds, seed=0))
    assert sum(u.cut_s is not None for u in talk) >= NEEDED[99]
    assert sum(u.length_s > 2 for u in talk) >= NEEDED[50]


def test_lowered_quality_breaks_a_stage() -> None:
    measured = good()
    measured.lowered.add("steps")
    (missed,) = missed_objectives(measured)
    assert "steps" in missed


def test_each_curve_ends_at_its_own_last_percentile() -> None:
    points = list(curve_points(histogram([0.1 * i for i in range(1, 11)])))
    percents = [percent for percent, _ in points]
    assert percents == sorted(percents)
    assert percents[-1] == last_percentile(histogram([0.1] * 10)) == 90
    assert max(seconds for _, seconds in points) == pytest.approx(1.0, rel=1e-3)


@given(st.floats(0.001, 99.0), st.floats(0.001, 99.0))
def test_longer_times_stand_higher(one: float, other: float) -> None:
    assert (one < other) <= (y_of(one, 100.0) >= y_of(other, 100.0))
    assert 0 < y_of(one, 100.0) < HEIGHT


def test_skew_without_pictures_was_not_measured() -> None:
    (stage,) = stages("")
    stage.measured.pictures = False
    report = summarize(LoadPlan(), (stage,), MemoryWatch(None))
    assert report.skew_ms.values == {"p50": None, "p95": None, "p99": None}


def test_the_slope_leaves_out_the_start_and_the_ramp() -> None:
    watch = MemoryWatch(1)
    for second in range(121):
        watch.times_s.append(1_000.0 + second)
        watch.mib.append(300.0 + (100.0 if second > 20 else 0.0) + 2.0 * second / 60)
    watch.mark()
    watch.times_s.append(1_122.0)
    watch.mib.append(900.0)
    slope, reason = watch.slope()
    assert reason == ""
    assert slope == pytest.approx(2 * MB_PER_MIB)


@pytest.mark.parametrize("samples", [0, 30])
def test_no_slope_without_a_minute_of_samples(samples: int) -> None:
    watch = MemoryWatch(1, [float(s) for s in range(samples)], [300.0] * samples)
    slope, reason = watch.slope()
    assert slope is None
    assert "cannot be read" in reason if samples == 0 else "needs 60" in reason


def test_the_plot_draws_nothing_for_what_was_not_measured() -> None:
    (stage,) = stages("")
    stage.measured.interrupt = Histogram()
    svg = render_plot(summarize(LoadPlan(), (stage,), MemoryWatch(None)))
    assert svg.count("<polyline") == 2
    assert "99.9 %" not in svg


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seconds": 0.0}, "above 0"), ({"sessions": 20}, "below sessions=20")],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoadPlan(**changes)  # type: ignore[arg-type]
