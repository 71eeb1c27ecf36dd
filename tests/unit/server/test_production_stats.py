"""What session.stats tells of a session's speed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from visavis.server.order import Outcome
from visavis.server.production_stats import ProductionStats

SPEECH = Outcome(
    buffered_samples=0,
    longest_chunk=33,
    ask_again_s=None,
    finished=False,
    abandoned=False,
    chunk_frames=13,
    frames=8,
    speech=True,
    busy_s=0.16,
    encode_s=0.016,
    wait_s=0.1,
)
IDLE = replace(SPEECH, speech=False, chunk_frames=0, frames=6, busy_s=0.006, encode_s=0.006)


def test_nothing_is_told_before_anything_was_made() -> None:
    assert ProductionStats().realtime_factor is None


def test_the_factor_is_that_of_speech_as_soon_as_there_was_some() -> None:
    stats = ProductionStats()
    stats.add(IDLE)
    assert stats.realtime_factor == pytest.approx(0.025)
    stats.add(SPEECH)
    assert stats.realtime_factor == pytest.approx(0.5)
    for _ in range(50):
        stats.add(IDLE)
    assert stats.realtime_factor == pytest.approx(0.5)
    assert stats.frames_per_s == pytest.approx(50)
    assert stats.encode_ms < 1.1


def test_a_chunk_that_was_cut_off_says_nothing() -> None:
    stats = ProductionStats()
    cut = replace(SPEECH, abandoned=True, frames=1, busy_s=0.15)
    stats.add(cut)
    assert stats.realtime_factor is None
    stats.add(SPEECH)
    stats.add(cut)
    assert stats.realtime_factor == pytest.approx(0.5)


def test_it_follows_what_chunks_take() -> None:
    stats = ProductionStats()
    stats.add(SPEECH)
    for _ in range(60):
        stats.add(replace(SPEECH, busy_s=0.32))
    assert stats.realtime_factor == pytest.approx(1.0, rel=0.01)
