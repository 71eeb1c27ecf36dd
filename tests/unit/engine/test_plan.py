"""Chunk arithmetic: laws that hold for every rate and length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine import plan

RATES = st.integers(plan.MIN_RATE, plan.MAX_RATE)


@pytest.mark.parametrize(
    ("chunk", "latents", "new"), [(9, 3, 4), (13, 4, 8), (17, 5, 12), (33, 9, 28)]
)
def test_sizes_of_a_chunk(chunk: int, latents: int, new: int) -> None:
    assert plan.latent_frames(chunk) == latents
    assert plan.new_frames(chunk) == new


@given(samples=st.integers(1, 10**9), rate=RATES)
def test_every_frame_of_an_utterance_has_samples_and_none_is_left(samples: int, rate: int) -> None:
    frames = plan.frames_of(samples, rate)
    assert plan.frame_start(frames - 1, rate) < samples <= plan.frame_start(frames, rate) + 1
    assert frames == -(-samples * 25 // rate)


@given(frame=st.integers(0, 10**7), rate=RATES)
def test_frames_start_within_a_sample_of_their_time(frame: int, rate: int) -> None:
    assert 0 <= frame * rate / 25 - plan.frame_start(frame, rate) < 1


@pytest.mark.parametrize(
    ("ready", "longest", "chunk"),
    [
        (3, 33, None),
        (4, 33, 9),
        (7, 33, 9),
        (8, 33, 13),
        (11, 33, 13),
        (12, 33, 17),
        (28, 33, 33),
        (999, 33, 33),
        (99, 17, 17),
    ],
)
def test_largest_chunk(ready: int, longest: int, chunk: int | None) -> None:
    assert plan.largest_chunk(ready, longest) == chunk


@pytest.mark.parametrize(
    ("remaining", "chunk"),
    [(1, 9), (4, 9), (5, 13), (8, 13), (9, 17), (12, 17), (13, 33), (28, 33), (29, 33)],
)
def test_covering_chunk(remaining: int, chunk: int) -> None:
    assert plan.covering_chunk(remaining) == chunk


@pytest.mark.parametrize("rate", [0, 7999, 48001, 16000.0, True])
def test_other_rates_are_refused_by_name(rate: int) -> None:
    with pytest.raises(plan.PlanError, match="input_rate.*8000 to 48000"):
        plan.check_rate(rate)


def test_other_chunk_lengths_are_refused() -> None:
    with pytest.raises(plan.PlanError, match="chunk_frames=12.*9, 13, 17, 33"):
        plan.check_chunk_frames(12)
