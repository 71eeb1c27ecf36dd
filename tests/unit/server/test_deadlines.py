"""Ends of a session: told before, told again when they come nearer, and then kept."""

from __future__ import annotations

import pytest

from visavis.server.config import ServerConfig
from visavis.server.deadlines import WARN_S, Deadlines
from visavis.server.errors import ErrorCode, ProtocolError

USED_UP = ProtocolError(ErrorCode.QUOTA_EXCEEDED, "nothing is left today")


def deadlines(**settings: float) -> Deadlines:
    ends = Deadlines(ServerConfig(**{"max_session_s": 1_000.0, **settings}), 0.0)  # type: ignore[arg-type]
    ends.begin(0.0)
    return ends


def test_what_a_key_has_left_is_told_and_then_ends_the_session() -> None:
    ends = deadlines()
    ends.bound(100.0, USED_UP)
    assert ends.due(100 - WARN_S - 1, busy=True) == (None, None)
    warning, end = ends.due(100 - WARN_S, busy=True)
    assert warning is not None
    assert end is None
    assert (warning.reason, warning.deadline_s) == ("max_duration", WARN_S)
    assert ends.due(99.0, busy=True) == (None, None)
    assert ends.due(100.0, busy=True) == (None, USED_UP)


def test_an_end_that_comes_nearer_is_told_again_and_one_that_goes_away_is_gone() -> None:
    ends = deadlines()
    ends.bound(20.0, USED_UP)
    assert ends.due(0.0, busy=True)[0] is not None
    ends.bound(10.0, USED_UP)
    warning, _ = ends.due(1.0, busy=True)
    assert warning is not None
    assert warning.deadline_s == 9.0
    ends.bound(500.0, USED_UP)
    assert ends.due(30.0, busy=True) == (None, None)


def test_nobody_ends_without_a_word() -> None:
    ends = deadlines()
    ends.bound(5.0, USED_UP)
    warning, end = ends.due(6.0, busy=True)
    assert warning is not None
    assert (warning.deadline_s, end) == (0.0, USED_UP)


@pytest.mark.parametrize("bound_s", [None, 2_000.0])
def test_the_session_itself_lasts_as_long_as_was_said(bound_s: float | None) -> None:
    ends = deadlines(max_session_s=50.0, idle_timeout_s=10_000.0)
    if bound_s is not None:
        ends.bound(bound_s, USED_UP)
    warning, _ = ends.due(40.0, busy=True)
    assert warning is not None
    assert warning.deadline_s == 10.0
    _, end = ends.due(50.0, busy=True)
    assert end is not None
    assert end.code is ErrorCode.MAX_DURATION


def test_an_end_that_went_away_and_came_back_is_told_anew() -> None:
    ends = deadlines()
    ends.bound(20.0, USED_UP)
    assert ends.due(1.0, busy=True)[0] is not None
    ends.bound(500.0, USED_UP)
    assert ends.due(2.0, busy=True) == (None, None)
    warning, _ = ends.due(480.0, busy=True)
    assert warning is not None
    assert warning.deadline_s == 20.0
    assert ends.due(500.0, busy=True) == (None, USED_UP)


def test_an_end_that_comes_at_once_is_told_whatever_was_told_before() -> None:
    ends = deadlines()
    ends.bound(20.0, USED_UP)
    assert ends.due(1.0, busy=True)[0] is not None
    ends.bound(2.0, USED_UP)
    warning, end = ends.due(2.0, busy=True)
    assert warning is not None
    assert (warning.deadline_s, end) == (0.0, USED_UP)


def test_who_comes_back_is_told_again() -> None:
    ends = deadlines(max_session_s=50.0, idle_timeout_s=40.0)
    assert ends.due(45.0 - 10.0, busy=False)[0] is not None
    ends.active(36.0)
    assert ends.due(41.0, busy=False)[0] is not None
    assert ends.due(42.0, busy=False) == (None, None)
    ends.resumed(43.0)
    again, _ = ends.due(44.0, busy=False)
    assert again is not None
    assert (again.reason, again.deadline_s) == ("max_duration", 6.0)


def test_nobody_is_idle_for_too_long_without_a_word() -> None:
    ends = deadlines(idle_timeout_s=10.0)
    warning, end = ends.due(11.0, busy=False)
    assert warning is not None
    assert (warning.reason, warning.deadline_s) == ("idle", 0.0)
    assert end is not None
    assert end.code is ErrorCode.IDLE_TIMEOUT


def test_a_session_that_waits_for_its_place_does_not_age() -> None:
    ends = Deadlines(ServerConfig(max_session_s=50.0, idle_timeout_s=10_000.0), 0.0)
    assert ends.due(500.0, busy=False) == (None, None)
    ends.begin(500.0)
    assert ends.due(530.0, busy=False) == (None, None)
    _, end = ends.due(550.0, busy=False)
    assert end is not None
    assert end.code is ErrorCode.MAX_DURATION
