"""What follows from measured costs: batch caps, time to the first frame, how many can speak."""

import itertools

import pytest
from tiny_model import tiny_pipeline, tiny_session

from visavis.engine.costs import ChunkCosts, measure_costs


def costs(steps_s: dict[int, float], *, frame_s: float = 0.006) -> ChunkCosts:
    lengths = {length: {b: s * length / 33 for b, s in steps_s.items()} for length in (9, 17, 33)}
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


def test_measuring_times_steps_and_frames_of_every_length() -> None:
    pipeline = tiny_pipeline()
    known = measure_costs(
        pipeline, lambda length: tiny_session(pipeline).begin_idle(length), runs=1
    )
    assert sorted(known.steps_s) == [9, 17, 33]
    assert all(s > 0 for by_batch in known.steps_s.values() for s in by_batch.values())
    assert min(known.prepare_s, known.first_frame_s, known.frame_s) > 0
    assert set(known.caps) == {9, 17, 33}
