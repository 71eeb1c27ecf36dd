"""How long the next chunk is, and when waiting for a longer one would be noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.plan import covering_chunk, new_frames
from visavis.server.chunk_policy import MARGIN_S, ChunkPolicy

START_S = {9: 0.05, 13: 0.06, 17: 0.07, 33: 0.1}


def policy(lead_s: float, *, fewest_frames: int = 4, hurry: bool = False) -> ChunkPolicy:
    return ChunkPolicy(lead_s=lead_s, start_s=START_S, fewest_frames=fewest_frames, hurry=hurry)


@pytest.mark.parametrize(
    ("ready", "fewest_frames", "chunk"),
    [
        *((3, 4, None), (4, 4, 9), (7, 4, 9), (8, 4, 13), (11, 4, 13), (12, 4, 17), (40, 4, 17)),
        *((7, 8, None), (8, 8, 13), (4, 12, None), (11, 12, None), (12, 12, 17)),
    ],
)
def test_the_first_chunk_begins_as_soon_as_the_load_allows(
    ready: int, fewest_frames: int, chunk: int | None
) -> None:
    chosen = policy(0.3, fewest_frames=fewest_frames).choose(
        ready=ready, committed=False, longest=17
    )
    assert chosen == chunk


def test_the_longest_chunk_is_made_as_soon_as_its_audio_is_there() -> None:
    assert policy(5.0).choose(ready=28, committed=False, longest=33) == 33


def test_it_waits_for_a_longer_chunk_while_the_client_has_something_to_play() -> None:
    patient = policy(0.5)
    assert patient.choose(ready=13, committed=False, longest=33) is None
    wait_s = patient.wait_s(ready=13, longest=33)
    assert wait_s == pytest.approx(0.5 - START_S[17] - MARGIN_S)
    later = policy(0.5 - wait_s)
    assert later.choose(ready=13, committed=False, longest=33) == 17


def test_without_time_for_a_long_chunk_a_shorter_one_is_made() -> None:
    soon = policy(START_S[17] + MARGIN_S + 0.001)
    assert soon.choose(ready=28, committed=False, longest=33) == 17


def test_when_all_are_too_late_a_longer_one_is_made_that_hardly_begins_later() -> None:
    assert policy(0.0).choose(ready=28, committed=False, longest=33) == 17
    slow = ChunkPolicy(lead_s=0, start_s={9: 0.1, 13: 0.13, 17: 0.2, 33: 0.3}, fewest_frames=4)
    assert slow.choose(ready=28, committed=False, longest=33) == 13


@pytest.mark.parametrize("lead_s", [0.0, 0.05, 0.5])
def test_live_speech_keeps_the_length_that_the_load_allows(lead_s: float) -> None:
    busy = policy(lead_s, fewest_frames=12)
    assert busy.choose(ready=11, committed=False, longest=33) is None
    assert busy.wait_s(ready=11, longest=33) is None
    late = busy.choose(ready=12, committed=False, longest=33)
    assert late == (None if lead_s > 0.2 else 17)
    # The end of an utterance is as long as it is.
    assert busy.choose(ready=3, committed=True, longest=33) == 9


def test_a_client_that_waits_gets_what_there_is() -> None:
    assert policy(0.0, fewest_frames=12, hurry=True).choose(ready=5, committed=False, longest=17)


@given(st.integers(0, 80), st.floats(0, 2), st.sampled_from([17, 33]))
def test_a_committed_tail_is_never_held_back(ready: int, lead_s: float, longest: int) -> None:
    chunk = policy(lead_s).choose(ready=ready, committed=True, longest=longest)
    if not ready:
        assert chunk is None
    elif ready <= new_frames(longest):
        assert chunk == covering_chunk(ready)
    else:
        assert chunk in (9, 13, 17, longest)


@given(st.integers(0, 80), st.floats(0, 2), st.sampled_from([17, 33]))
def test_no_chunk_needs_more_audio_than_there_is(ready: int, lead_s: float, longest: int) -> None:
    chunk = policy(lead_s).choose(ready=ready, committed=False, longest=longest)
    assert chunk is None or (new_frames(chunk) <= ready and chunk <= longest)
    if chunk is None and ready >= 4:
        wait_s = policy(lead_s).wait_s(ready=ready, longest=longest)
        assert wait_s is not None
        assert wait_s <= lead_s
