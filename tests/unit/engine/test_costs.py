"""What follows from measured costs: batch caps, time to the first frame, how many can speak."""

import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_pipeline, tiny_session

from visavis.engine.costs import (
    FEWEST,
    WINDOW,
    ChunkCosts,
    CostMeter,
    measure_costs,
    settled_clock,
)


def costs(steps_s: dict[int, float], *, frame_s: float = 0.006) -> ChunkCosts:
    lengths = {
        length: {b: s * length / 33 for b, s in steps_s.items()} for length in (9, 13, 17, 33)
    }
    return ChunkCosts(steps_s=lengths, prepare_s=0.002, first_frame_s=0.01, frame_s=frame_s)


@pytest.mark.parametrize(
    ("steps_s", "cap"),
    [
        ({1: 0.02, 2: 0.02, 4: 0.02}, 4),
        ({1: 0.02, 2: 0.041, 4: 0.05}, 1),  # the first doubling must pay, too
        ({1: 0.02, 2: 0.036, 4: 0.071}, 2),
        ({1: 0.02, 2: 0.0390}, 1),
        ({1: 0.1, 2: 0.16}, 1),  # a barge-in would wait too long
    ],
    ids=["flat", "not at all", "pays once", "within noise", "too long a step"],
)
def test_as_many_are_batched_as_each_doubling_pays(steps_s: dict[int, float], cap: int) -> None:
    assert costs(steps_s).cap(33) == cap


def test_a_chunk_is_preparation_steps_and_frames() -> None:
    known = costs({1: 0.02, 2: 0.03})
    assert known.start_s(33, 4) == pytest.approx(0.002 + 4 * 0.02 + 0.01)
    assert known.chunk_s(33, 4) == pytest.approx(0.002 + 4 * 0.02 + 0.01 + 27 * 0.006)
    assert known.chunk_s(33, 4, sessions=3) == pytest.approx(0.002 + 4 * 0.015 + 0.01 + 27 * 0.006)
    assert known.realtime_factor(4) == pytest.approx(known.chunk_s(33, 4) / 1.12)


def test_capacity_never_promises_more_than_the_load_allows() -> None:
    known = costs({1: 0.02, 2: 0.03, 4: 0.05})
    for steps, load in itertools.product((2, 4), (0.3, 0.8, 2.0)):
        sessions = known.capacity(steps, load, 64)
        if sessions:
            assert sessions * known.realtime_factor(steps, sessions=sessions) <= load
        more = sessions + 1
        assert more * known.realtime_factor(steps, sessions=more) > load
    assert known.capacity(2, 0.8, 64) >= known.capacity(4, 0.8, 64)
    assert costs({1: 1.0}).capacity(4, 0.8, 64) == 0


def test_a_gpu_has_done_its_work_when_the_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append(str(device)))
    monkeypatch.setattr(time, "perf_counter", lambda: seen.append("read") or 1.0)
    assert settled_clock(torch.device("cuda:1"))() == 1.0
    assert seen == ["cuda:1", "read"]
    settled_clock(torch.device("cpu"))()
    assert seen == ["cuda:1", "read", "read"]  # nothing to wait for


def test_measuring_times_steps_and_frames_of_every_length() -> None:
    pipeline = tiny_pipeline()
    known = measure_costs(
        pipeline, lambda length: tiny_session(pipeline).begin_idle(length), runs=1
    )
    assert sorted(known.steps_s) == [9, 13, 17, 33]
    assert all(s > 0 for by_batch in known.steps_s.values() for s in by_batch.values())
    assert min(known.prepare_s, known.first_frame_s, known.frame_s) > 0
    assert set(known.caps) == {9, 13, 17, 33}


def slower(by: float) -> ChunkCosts:
    known = costs({1: 0.02, 2: 0.03, 4: 0.05})
    return ChunkCosts(
        steps_s={
            length: {batch: by * seconds for batch, seconds in by_batch.items()}
            for length, by_batch in known.steps_s.items()
        },
        prepare_s=by * known.prepare_s,
        first_frame_s=by * known.first_frame_s,
        frame_s=by * known.frame_s,
    )


def serve_alone(meter: CostMeter, true: ChunkCosts, steps: int, slowness: float = 1.0) -> None:
    """One session's idle chunks, as the scheduler would tell of them."""
    for _ in range(steps):
        meter.step(33, 1, slowness * true.steps_s[33][1])
        later_s = slowness * 27 * true.frame_s
        meter.decoded(33, 28, slowness * true.first_frame_s, later_s)
    meter.refresh()


@given(st.floats(1.5, 20.0))
def test_capacity_recovers_from_a_busy_warm_up(busy: float) -> None:
    true = slower(1.0)
    meter = CostMeter(slower(busy))
    assert meter.costs.capacity(4, 0.9, 64) <= true.capacity(4, 0.9, 64)
    serve_alone(meter, true, FEWEST)
    # Batches, other lengths and preparation were not seen: they changed as much.
    assert meter.costs.capacity(4, 0.9, 64) == true.capacity(4, 0.9, 64)
    assert meter.costs.caps == true.caps
    assert meter.costs.start_s(9, 4) == pytest.approx(true.start_s(9, 4))


def test_one_disturbed_step_changes_nothing() -> None:
    true = slower(1.0)
    meter = CostMeter(true)
    serve_alone(meter, true, FEWEST)
    before = meter.costs
    meter.step(33, 1, 5.0)
    meter.refresh()
    assert meter.costs == before


def test_a_machine_that_stays_slow_is_believed_after_a_while() -> None:
    true = slower(1.0)
    meter = CostMeter(true)
    serve_alone(meter, true, WINDOW, slowness=3.0)
    assert meter.costs.capacity(4, 0.9, 64) == slower(3.0).capacity(4, 0.9, 64)


def test_too_few_steps_say_nothing() -> None:
    true = slower(1.0)
    meter = CostMeter(true)
    serve_alone(meter, true, FEWEST - 1, slowness=3.0)
    assert meter.costs == true


def test_what_was_seen_of_a_batch_counts_for_it_alone() -> None:
    true = slower(1.0)
    meter = CostMeter(true)
    for _ in range(FEWEST):
        meter.step(17, 4, 2 * true.steps_s[17][4])
        meter.step(17, 1, true.steps_s[17][1])
        meter.step(17, 3, 9.0)  # no size that is asked about
    meter.refresh()
    assert meter.costs.steps_s[17][4] == pytest.approx(2 * true.steps_s[17][4])
    assert meter.costs.steps_s[17][1] == pytest.approx(true.steps_s[17][1])
    assert meter.costs.cap(17) < true.cap(17)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([9, 13, 17, 33]),
            st.sampled_from([1, 2, 3, 4, 8]),
            st.floats(1e-4, 10.0),
        ),
        max_size=200,
    )
)
def test_costs_stay_within_what_was_measured(steps: list[tuple[int, int, float]]) -> None:
    true = slower(1.0)
    meter = CostMeter(true)
    seen: dict[tuple[int, int], list[float]] = {}
    for length, batch, seconds in steps:
        meter.step(length, batch, seconds)
        meter.refresh()
        seen.setdefault((length, batch), []).append(seconds)
    assert meter.costs.steps_s.keys() == true.steps_s.keys()
    for length, by_batch in meter.costs.steps_s.items():
        assert by_batch.keys() == true.steps_s[length].keys()
        for batch, now_s in by_batch.items():
            own = seen.get((length, batch), [])
            assert now_s > 0
            if len(own) >= FEWEST:
                assert now_s == min(own[-WINDOW:])
    assert meter.costs.capacity(4, 0.9, 64) >= 0
