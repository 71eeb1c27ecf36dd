"""Quotas: sessions at a time, minutes a day, and what outlives a restart."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal
from visavis.server.quotas import DAY_S, KEPT_DAYS, TOKEN_SESSIONS, WRITE_EVERY_S, Quotas

DAY = 20_000


class Clock:
    """The wall's, as called, and a monotonic one."""

    def __init__(self) -> None:
        self.now_s = float(DAY * DAY_S + 60)
        self.monotonic_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Somebody, or NTP, sets the wall's clock."""
        self.now_s += seconds


def quotas_of(clock: Clock, file: Path | None = None) -> Quotas:
    return Quotas(file, now=clock, clock=clock.monotonic)


def key(name: str = "app", **quota: float) -> Principal:
    return Principal(name=name, kind="key", **quota)  # type: ignore[arg-type]


def refused(quotas: Quotas, principal: Principal) -> ProtocolError:
    with pytest.raises(ProtocolError) as error, quotas.lease(principal):
        pass
    assert error.value.code is ErrorCode.QUOTA_EXCEEDED
    assert error.value.retry_after_s is not None
    return error.value


def test_sessions_at_a_time_are_counted_by_key() -> None:
    quotas = quotas_of(Clock())
    app = key(max_sessions=2)
    with quotas.lease(app), quotas.lease(app), quotas.lease(key("other", max_sessions=1)):
        refused(quotas, app)
    with quotas.lease(app):
        assert quotas.sessions("app") == 1


def test_a_token_serves_one_viewer() -> None:
    quotas = quotas_of(Clock())
    token = Principal(name="app", kind="token", token_id="t1")
    with ExitStack() as stack:
        for _ in range(TOKEN_SESSIONS):
            stack.enter_context(quotas.lease(token))
        refused(quotas, token)
        stack.enter_context(quotas.lease(Principal(name="app", kind="token", token_id="t2")))


def test_minutes_run_out_while_sessions_live_and_come_back_tomorrow() -> None:
    clock = Clock()
    quotas = quotas_of(clock)
    app = key(minutes_per_day=2)
    with quotas.lease(app):
        clock.advance(90)
        assert quotas.remaining_s(app) == pytest.approx(30)
        clock.advance(60)
        error = refused(quotas, app)
    assert error.retry_after_s == pytest.approx((DAY + 1) * DAY_S - clock.now_s)
    clock.advance((DAY + 1) * DAY_S + 1 - clock.now_s)
    assert quotas.remaining_s(app) == 120


def test_usage_outlives_a_restart_but_not_the_day(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "data" / "usage.json"
    app = key(minutes_per_day=1)
    with quotas_of(clock, file).lease(app):
        clock.advance(60)
    refused(quotas_of(clock, file), app)
    clock.advance(DAY_S)
    with quotas_of(clock, file).lease(app):
        pass


def test_a_damaged_file_counts_from_zero(tmp_path: Path) -> None:
    file = tmp_path / "usage.json"
    file.write_text("{")
    with quotas_of(Clock(), file).lease(key(minutes_per_day=1)):
        pass


@given(
    st.lists(
        st.tuples(st.floats(0, 4 * 3600), st.floats(0, 4 * 3600), st.floats(0, 3600)), max_size=20
    )
)
def test_what_is_charged_is_what_was_used_today(sessions: list[tuple[float, float, float]]) -> None:
    clock = Clock()
    quotas = quotas_of(clock)
    app = key(minutes_per_day=1e9)
    used, day = 0.0, int(clock.now_s // DAY_S)
    for pause, length, rest in sessions:
        clock.advance(pause)
        start = clock.now_s
        with quotas.lease(app):
            clock.advance(length)
        end = clock.now_s
        clock.advance(rest)
        if int(end // DAY_S) != day:
            day, used = int(end // DAY_S), 0.0
        used += end - max(start, day * DAY_S)
    if int(clock.now_s // DAY_S) != day:
        used = 0.0
    left = quotas.remaining_s(app)
    assert left is not None
    assert 60e9 - left == pytest.approx(used, abs=0.1)


@pytest.mark.parametrize("jump_s", [DAY_S, 3_600, -1_800, -20 * DAY_S])
def test_a_jump_of_the_wall_clock_charges_nobody(jump_s: float) -> None:
    clock = Clock()
    clock.advance(6 * 3_600)
    quotas = quotas_of(clock)
    app = key(minutes_per_day=10)
    with quotas.lease(app):
        clock.advance(60)
        clock.jump(jump_s)
        clock.advance(60)
        left = quotas.remaining_s(app)
    # On another day than before, what was used since it was charged last may count for it.
    assert left == pytest.approx(600 - 120)
    assert quotas.remaining_s(app) == left


def test_a_clock_that_is_set_back_over_midnight_gives_no_second_day() -> None:
    clock = Clock()
    clock.advance(DAY_S - 60 - clock.now_s % DAY_S)
    quotas = quotas_of(clock)
    app = key(minutes_per_day=10)
    with quotas.lease(app):
        clock.advance(60 + 30)
        assert quotas.remaining_s(app) == pytest.approx(600 - 30)
        clock.jump(-45)
        clock.advance(10)
        assert quotas.remaining_s(app) == pytest.approx(600 - 40)
        clock.advance(60)
        assert quotas.remaining_s(app) == pytest.approx(600 - 100)


def test_sessions_of_one_key_share_what_is_left() -> None:
    clock = Clock()
    quotas = quotas_of(clock)
    app = key(minutes_per_day=1)
    with quotas.lease(app) as first:
        assert first.left_s() == pytest.approx(60)
        with quotas.lease(app) as second, quotas.lease(key("other")) as other:
            clock.advance(10)
            assert first.left_s() == second.left_s() == pytest.approx(20)
            assert other.left_s() is None
            clock.advance(20)
            assert first.left_s() == 0
            assert first.used_up().code is ErrorCode.QUOTA_EXCEEDED
    assert quotas.remaining_s(app) == 0


def test_minutes_of_a_process_that_dies_are_not_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "usage.json"
    quotas = quotas_of(clock, file)
    app = key(minutes_per_day=10)
    with quotas.lease(app):
        for _ in range(300):
            clock.advance(1)
            quotas.remaining_s(app)
        found = quotas_of(clock, file).remaining_s(app)
    assert found == pytest.approx(300, abs=WRITE_EVERY_S)


def test_replicas_with_a_common_folder_share_a_keys_minutes(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (quotas_of(clock, tmp_path / f"usage-{name}.json") for name in "ab")
    app = key(minutes_per_day=2)
    for quotas in (one, two):
        with quotas.lease(app), quotas.lease(key("other")):
            clock.advance(60)
    refused(one, app)
    refused(two, app)
    # Nobody has overwritten what another one wrote: a third adds up the same.
    refused(quotas_of(clock, tmp_path / "usage-c.json"), app)
    clock.advance(DAY_S)
    with one.lease(app), two.lease(app):
        assert one.remaining_s(app) == two.remaining_s(app) == 120


def test_a_long_session_hears_of_other_replicas_within_a_minute(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (quotas_of(clock, tmp_path / f"usage-{name}.json") for name in "ab")
    app = key(minutes_per_day=10)
    with one.lease(app) as lease, two.lease(app):
        for _ in range(240):
            clock.advance(1)
            one.remaining_s(app)
            two.remaining_s(app)
        assert lease.left_s() == pytest.approx(600 - 2 * 240, abs=WRITE_EVERY_S + 1)


def test_files_of_replicas_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    clock = Clock()
    own, left, damaged = (tmp_path / f"usage{name}.json" for name in ("-a", "-b", ""))
    damaged.write_text("{")
    with quotas_of(clock, left).lease(key(minutes_per_day=1)):
        pass
    clock.advance((KEPT_DAYS + 1) * DAY_S)
    with quotas_of(clock, own).lease(key(minutes_per_day=1)):
        pass
    assert sorted(tmp_path.iterdir()) == [own, damaged]
