"""Pacing on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.pacing import FRAME_S, OVERDUE_S, Credit, Pacer


def pacer(max_inflight_us: int = 1_500_000) -> Pacer:
    return Pacer(speech_lead_s=1.12, idle_lead_s=0.24, max_inflight_us=max_inflight_us)


def sent_at(clock: Pacer, frames: int, *, idle: bool, start_s: float = 100.0) -> list[float]:
    """When each of `frames` frames goes out, if all are ready and sending takes no time."""
    now_s, times = start_s, []
    for index in range(frames):
        delay_s = clock.delay_s(index, now_s, idle=idle)
        assert delay_s is not None
        now_s += delay_s
        clock.sent(index, now_s)
        times.append(now_s - start_s)
    return times


@pytest.mark.parametrize(("idle", "lead_s"), [(False, 1.12), (True, 0.24)])
def test_a_lead_at_once_and_then_real_time(idle: bool, lead_s: float) -> None:
    for index, time_s in enumerate(sent_at(pacer(), 100, idle=idle)):
        assert time_s == pytest.approx(max(0.0, index * FRAME_S - lead_s), abs=1e-6)


def test_a_late_frame_moves_the_clock_instead_of_being_caught_up() -> None:
    clock = pacer()
    clock.sent(0, 0.0)
    assert clock.late_s(1, 5.0) == pytest.approx(4.96)
    clock.sent(1, 5.0)
    assert clock.late_s(2, 5.0) == 0.0
    assert clock.playback_end_s(2, 5.0) == pytest.approx(5.04)


def test_no_credit_until_the_client_says_where_it_is() -> None:
    clock = pacer(max_inflight_us=200_000)
    clock.sent(0, 0.0)
    assert clock.delay_s(6, 0.0, idle=False) == 0.0
    clock.acknowledge(0, 0.0)
    assert clock.delay_s(6, 0.1, idle=False) is None
    assert clock.blocked_s(2.1) == pytest.approx(2.0)
    clock.acknowledge(80_000, 2.1)
    assert clock.delay_s(6, 2.1, idle=False) == 0.0
    assert clock.blocked_s(3.0) == 0.0


def test_credit_never_shrinks() -> None:
    clock = pacer(max_inflight_us=0)
    clock.acknowledge(400_000, 0.0)
    clock.acknowledge(0, 1.0)
    assert clock.credit(10, 1.0) is Credit.FULL


def test_a_client_that_fell_behind_gets_sound_up_to_twice_the_limit() -> None:
    clock = pacer(max_inflight_us=200_000)
    clock.acknowledge(0, 0.0)
    for index in range(6):
        clock.sent(index, 0.0)
    assert clock.credit(6, 0.5) is Credit.NONE
    now_s, sound = 0.24 + OVERDUE_S, 0
    while clock.credit(6 + sound, now_s + sound) is Credit.SOUND_ONLY:
        clock.sent(6 + sound, now_s + sound, Credit.SOUND_ONLY)
        sound += 1
    assert sound == 5
    clock.acknowledge(6 * 40_000, 10.0)
    assert clock.credit(11, 10.0) is Credit.FULL


def test_a_client_that_shows_something_new_is_not_blocked() -> None:
    clock = pacer(max_inflight_us=0)
    clock.acknowledge(0, 0.0)
    clock.sent(0, 0.0)
    for step in range(1, 6):
        assert clock.credit(100, 5.0 * step) is Credit.NONE
        clock.acknowledge(40_000 * step, 5.0 * step)
        assert clock.blocked_s(5.0 * step + 1) == pytest.approx(1.0)


def test_after_a_cancel_media_goes_out_at_once() -> None:
    clock = pacer()
    sent_at(clock, 60, idle=False, start_s=0.0)
    clock.acknowledge(0, 1.3)
    assert clock.delay_s(60, 1.3, idle=False) is None
    clock.restart(60 * 40_000, 1.3)
    assert clock.delay_s(60, 1.3, idle=True) == 0.0


def test_what_is_on_screen_by_the_clock_alone() -> None:
    clock = pacer()
    assert clock.shown_pts_us(5.0) is None
    clock.sent(0, 5.0)
    clock.sent(1, 5.0)
    assert clock.shown_pts_us(5.1) == pytest.approx(100_000, abs=2)


def test_what_is_on_screen_by_the_clients_word() -> None:
    clock = pacer()
    clock.sent(0, 5.0)
    # This client began 300 ms later than it could.
    clock.acknowledge(200_000, 5.5)
    assert clock.shown_pts_us(5.6) == pytest.approx(300_000, abs=2)


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=100))
def test_the_client_is_never_ahead_by_more_than_the_lead(stalls_s: list[float]) -> None:
    clock, now_s = pacer(), 0.0
    for index, stall_s in enumerate(stalls_s):
        now_s += stall_s
        now_s += clock.delay_s(index, now_s, idle=False) or 0.0
        clock.sent(index, now_s)
        assert clock.playback_end_s(index + 1, now_s) - now_s <= 1.12 + FRAME_S + 1e-6
