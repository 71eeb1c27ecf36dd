"""Quotas: sessions at a time, minutes a day, and what outlives a restart."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal
from visavis.server.quotas import DAY_S, TOKEN_SESSIONS, Quotas

DAY = 20_000


class Clock:
    def __init__(self) -> None:
        self.now_s = float(DAY * DAY_S + 60)

    def __call__(self) -> float:
        return self.now_s


def key(name: str = "app", **quota: float) -> Principal:
    return Principal(name=name, kind="key", **quota)  # type: ignore[arg-type]


def refused(quotas: Quotas, principal: Principal) -> ProtocolError:
    with pytest.raises(ProtocolError) as error, quotas.lease(principal):
        pass
    assert error.value.code is ErrorCode.QUOTA_EXCEEDED
    assert error.value.retry_after_s is not None
    return error.value


def test_sessions_at_a_time_are_counted_by_key() -> None:
    quotas = Quotas(now=Clock())
    app = key(max_sessions=2)
    with quotas.lease(app), quotas.lease(app), quotas.lease(key("other", max_sessions=1)):
        refused(quotas, app)
    with quotas.lease(app):
        assert quotas.sessions("app") == 1


def test_a_token_serves_one_viewer() -> None:
    quotas = Quotas(now=Clock())
    token = Principal(name="app", kind="token", token_id="t1")
    with ExitStack() as stack:
        for _ in range(TOKEN_SESSIONS):
            stack.enter_context(quotas.lease(token))
        refused(quotas, token)
        stack.enter_context(quotas.lease(Principal(name="app", kind="token", token_id="t2")))


def test_minutes_run_out_while_sessions_live_and_come_back_tomorrow() -> None:
    clock = Clock()
    quotas = Quotas(now=clock)
    app = key(minutes_per_day=2)
    with quotas.lease(app):
        clock.now_s += 90
        assert quotas.remaining_s(app) == pytest.approx(30)
        clock.now_s += 60
        error = refused(quotas, app)
    assert error.retry_after_s == pytest.approx((DAY + 1) * DAY_S - clock.now_s)
    clock.now_s = float((DAY + 1) * DAY_S + 1)
    assert quotas.remaining_s(app) == 120


def test_usage_outlives_a_restart_but_not_the_day(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "data" / "usage.json"
    app = key(minutes_per_day=1)
    with Quotas(file, now=clock).lease(app):
        clock.now_s += 60
    refused(Quotas(file, now=clock), app)
    clock.now_s += DAY_S
    with Quotas(file, now=clock).lease(app):
        pass


def test_a_damaged_file_counts_from_zero(tmp_path: Path) -> None:
    file = tmp_path / "usage.json"
    file.write_text("{")
    with Quotas(file, now=Clock()).lease(key(minutes_per_day=1)):
        pass


@given(
    st.lists(
        st.tuples(st.floats(0, 4 * 3600), st.floats(0, 4 * 3600), st.floats(0, 3600)), max_size=20
    )
)
def test_what_is_charged_is_what_was_used_today(sessions: list[tuple[float, float, float]]) -> None:
    clock = Clock()
    quotas = Quotas(now=clock)
    app = key(minutes_per_day=1e9)
    used, day = 0.0, int(clock.now_s // DAY_S)
    for pause, length, rest in sessions:
        clock.now_s += pause
        start = clock.now_s
        with quotas.lease(app):
            clock.now_s += length
        end = clock.now_s
        clock.now_s += rest
        if int(end // DAY_S) != day:
            day, used = int(end // DAY_S), 0.0
        used += end - max(start, day * DAY_S)
    if int(clock.now_s // DAY_S) != day:
        used = 0.0
    left = quotas.remaining_s(app)
    assert left is not None
    assert 60e9 - left == pytest.approx(used, abs=0.1)
