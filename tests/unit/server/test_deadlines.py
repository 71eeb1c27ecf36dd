"""Ends of a session: told before, told again when they come nearer, and then kept."""

from __future__ import annotations

import pytest

from visavis.server.config import ServerConfig
from visavis.server.deadlines import WARN_S, Deadlines
from visavis.server.errors import ErrorCode, ProtocolError

USED_UP = ProtocolError(ErrorCode.QUOTA_EXCEEDED, "nothing is left today")


def deadlines(**settings: float) -> Deadlines:
    return Deadlines(ServerConfig(**{"max_session_s": 1_000.0, **settings}), 0.0)  # type: ignore[arg-type]


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
