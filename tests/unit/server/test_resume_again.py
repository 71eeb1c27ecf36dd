"""A connection lost soon after a resume: every event comes, once, and session.resumed is news."""

from __future__ import annotations

from typing import Any

import pytest
from session_viewer import Viewer, check_close, configured
from virtual_session import RATE, Link, VirtualServer, opened

from visavis.server import message_handler
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession


def begin(server: VirtualServer, viewer: Viewer) -> Link:
    link = configured(server)
    viewer.read(link)
    assert viewer.configured
    return link


def come_back(server: VirtualServer, viewer: Viewer) -> Link:
    link = server.connect()
    server.run(0.01)
    viewer.resume(link)
    server.run(0.01)
    return link


def test_a_connection_lost_amid_the_replay_loses_no_event() -> None:
    with opened(max_sessions=1) as server:
        viewer = Viewer(acknowledges=False)
        first = begin(server, viewer)
        viewer.speak(first, RATE // 8)
        first.socket.say("input_audio_buffer.commit")
        server.run(0.2)
        # Nothing of the answer is heard; then of the replay no more than its first message.
        first.socket.lose(1006)
        server.run(0.1)
        second = come_back(server, viewer)
        del second.socket.sent[2:]
        viewer.read(second)
        second.socket.lose(1006)
        server.run(0.1)
        third = come_back(server, viewer)
        server.run(2.0)
        viewer.read(third)
        assert [heard.status for heard in viewer.heard.values()] == ["completed"]
        viewer.check_audio()


def test_who_is_taken_over_is_told_so_and_the_newest_hears_of_one_resume() -> None:
    with opened(max_sessions=1) as server:
        viewer = Viewer(acknowledges=False)
        older = begin(server, viewer)
        for _ in range(3):
            newer = come_back(server, viewer)
            viewer.read(newer)
            assert older.socket.closed == (4409, "taken_over")
            check_close(older, said_goodbye=False)
            texts = [message for message in newer.socket.sent if isinstance(message, str)]
            assert sum('"session.resumed"' in text for text in texts) == 1
            older = newer
        assert server.admission.active == 1


def test_a_session_that_fails_while_it_is_resumed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def failing(live: LiveSession, *_: Any) -> None:
        live.fail(ProtocolError(ErrorCode.ENGINE_FAILED, "the engine is gone"))
        raise ConnectionError("and so is the client")

    with opened(max_sessions=1, resume_ttl_s=60.0) as server:
        viewer = Viewer(acknowledges=False)
        link = begin(server, viewer)
        link.socket.lose(1006)
        server.run(0.1)
        assert server.admission.active == 1
        monkeypatch.setattr(message_handler, "resume", failing)
        come_back(server, viewer)
        server.run(1.0)
        assert server.admission.active == 0
        assert server.desk.sessions == []


@pytest.mark.parametrize("lost_for_s", [2.0, 7.0])
def test_time_in_which_nobody_can_come_back_does_not_count(lost_for_s: float) -> None:
    with opened(max_sessions=1, resume_ttl_s=8.0) as server:
        viewer = Viewer(acknowledges=False)
        link = begin(server, viewer)
        link.socket.lose(1006)
        server.run(lost_for_s)
        server.desk.reachable.clear()
        server.run(4.0)
        server.desk.reachable.set()
        server.run(7.5)
        assert server.admission.active == 1
        server.run(1.0)
        assert server.admission.active == 0
