"""Shut mouths, wide ones, and the moment when speech begins."""

import numpy as np
import pytest

from visavis.training.evaluation.recordings import FLOOR_DB, inside_pauses
from visavis.training.evaluation.silence import MouthRange, onset_jump_ratio, onsets


def test_a_mouth_that_never_shuts_is_open_in_silence() -> None:
    mouth = MouthRange(rest=0.02, wide=0.22)
    hanging = np.full(50, 0.08)  # never nearer to shut: its own lowest is no rest
    assert np.median(mouth.share(hanging)) == pytest.approx(0.3)
    assert np.median(mouth.share(np.full(50, 0.01))) == 0


def test_pauses_are_long_and_lose_their_edges() -> None:
    quiet = np.zeros(30, bool)
    quiet[3:6] = quiet[10:20] = True
    assert list(np.flatnonzero(inside_pauses(quiet))) == list(range(12, 18))


def test_an_onset_follows_a_pause() -> None:
    level = np.full(40, FLOOR_DB)
    level[10:15] = level[17:20] = level[30:] = -5.0
    assert list(onsets(level)) == [10, 30]
    assert list(onsets(np.zeros(40))) == []


def test_a_pop_at_the_onset_shows_against_the_usual_change() -> None:
    changes = np.ones(39)
    assert onset_jump_ratio(changes, np.array([10, 30])) == pytest.approx(1)
    changes[9] = 7.0  # into frame 10
    assert onset_jump_ratio(changes, np.array([10, 30])) == pytest.approx(4)
    assert onset_jump_ratio(changes, np.array([20])) == pytest.approx(1)
    assert np.isnan(onset_jump_ratio(changes, np.array([], np.int64)))
