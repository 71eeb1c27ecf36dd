"""In the line for a place: nothing is charged, nobody ages, and who goes is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from session_viewer import Viewer, configured
from virtual_session import RATE, Link, SessionEngine, VirtualServer, opened

from visavis.server.callers_quota import CallersQuota, LineShares
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.inbox import MAX_BYTES
from visavis.server.principal import Principal
from visavis.server.quotas import TOKEN_SESSIONS, Quotas

SETTINGS = {
    "avatar_id": "anyone",
    "input_audio": {"format": "pcm16", "rate": RATE},
    "output": {"video": "none"},
    "idle": "freeze",
}


class Account:
    """A quota that remembers when a session waited and lived."""

    def __init__(self, server: VirtualServer) -> None:
        self._now = server.loop.time
        self.waited: list[float] = []
        self.lived: list[float] = []

    @contextmanager
    def wait(self) -> Iterator[None]:
        self.waited.append(self._now())
        yield
        self.waited.append(self._now())

    @contextmanager
    def lease(self) -> Iterator[Any]:
        self.lived.append(self._now())
        yield Unlimited()
        self.lived.append(self._now())


class Unlimited:
    def left_s(self) -> float | None:
        return None

    def used_up(self) -> ProtocolError:
        raise AssertionError


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualServer]:
    """One place, which is taken from 0 to 50 s, and a line."""
    monkeypatch.setattr(SessionEngine, "max_queued", 2)
    with opened(max_sessions=1, max_session_s=50.0, idle_timeout_s=1_000.0) as server:
        configured(server)
        yield server


def queued(server: VirtualServer, viewer: Viewer, position: int = 1) -> Link:
    link = server.connect()
    link.socket.say("session.update", session=SETTINGS)
    server.run(0.1)
    viewer.read(link)
    assert server.admission.queued == position
    assert not viewer.configured
    return link


def test_who_waits_neither_pays_nor_ages(full: VirtualServer) -> None:
    account = Account(full)
    full.quota = account
    full.run(20.0)
    viewer = Viewer(acknowledges=False)
    link = queued(full, viewer)
    full.run(40.0)
    viewer.read(link)
    assert viewer.configured
    came, admitted = account.waited
    assert admitted - came > 25
    assert account.lived == [pytest.approx(admitted, abs=0.1)]
    # Its 50 seconds count from the place, not from the greeting.
    full.run(35.0)
    viewer.read(link)
    assert link.socket.open
    full.run(10.0)
    viewer.read(link)
    assert link.socket.closed == (4410, "max_duration")
    full.run(0.1)
    begun, ended = account.lived
    assert ended - begun == pytest.approx(50, abs=1)


def test_one_may_wait_longer_than_a_session_lasts(full: VirtualServer) -> None:
    second, third = Viewer(acknowledges=False), Viewer(acknowledges=False)
    queued(full, second)
    link = queued(full, third, 2)
    full.run(105.0)
    third.read(link)
    assert third.configured
    assert third.warned == set()
    assert link.socket.open


def test_who_goes_with_much_unsaid_leaves_the_line(full: VirtualServer) -> None:
    viewer = Viewer(acknowledges=False)
    link = queued(full, viewer)
    message = bytes(1 << 18)
    for seq in range(2 * MAX_BYTES // len(message)):
        link.socket.say_audio(seq, message)
    full.run(0.5)
    viewer.read(link)
    # It is told that there is no room, and is answered all the same.
    assert viewer.errors["input_buffer_overflow"] >= MAX_BYTES // len(message)
    link.socket.say("session.ping", t=7, event_id="still here?")
    full.run(0.1)
    assert any("still here?" in str(text) for text in link.unread)
    link.socket.lose(1006)
    full.run(0.1)
    assert link.task.done()
    assert full.admission.queued == 0


def quota(line: LineShares, quotas: Quotas, **principal: Any) -> CallersQuota:
    return CallersQuota(quotas, line, Principal(name="app", kind="key", **principal))


def test_as_many_of_a_key_may_wait_as_may_live() -> None:
    line, quotas = LineShares(), Quotas()
    app = quota(line, quotas, max_sessions=1)
    with app.wait():
        with pytest.raises(ProtocolError, match="wait for a place, 1 at most") as refused:
            app.wait().__enter__()
        assert refused.value.code is ErrorCode.QUOTA_EXCEEDED
        # Whoever waits is none of those that live.
        with app.lease():
            pass
    with app.wait(), app.lease():
        pass
    with app.lease(), pytest.raises(ProtocolError, match="1 sessions, 1 at most"):
        app.wait()


def test_as_many_of_a_token_may_wait_as_may_live() -> None:
    line, quotas = LineShares(), Quotas()
    token, other = (quota(line, quotas, token_id=name) for name in ("t1", "t2"))
    waits = [token.wait() for _ in range(TOKEN_SESSIONS)]
    for one in waits:
        one.__enter__()
    with pytest.raises(ProtocolError, match="another token"):
        token.wait().__enter__()
    with other.wait():
        pass
    for one in waits:
        one.__exit__(None, None, None)
    with token.wait():
        pass
