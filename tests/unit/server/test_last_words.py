"""Nothing follows the error that ends a session but the close, whatever goes wrong and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from session_viewer import Viewer, check_close, configured
from virtual_session import RATE, Link, VirtualServer, opened

import visavis.server.message_handler as server_handler
import visavis.server.session as server_session
from visavis.server.conversation import Conversation


@pytest.fixture
def server() -> Iterator[VirtualServer]:
    with opened(max_sessions=1, stats_every_s=1.0, slow_client_s=5.0) as server:
        yield server


def begin(server: VirtualServer, viewer: Viewer) -> Link:
    """A session that speaks."""
    link = configured(server)
    viewer.speak(link, RATE // 2)
    server.run(0.3)
    viewer.read(link)
    assert viewer.configured
    return link


def block(server: VirtualServer, link: Link) -> None:
    """The writer waits amid media, until more than media is due."""
    link.socket.stop_reading()
    server.run(1.2)
    assert isinstance(link.socket.sent[-1], bytes)


def check_fault(server: VirtualServer, viewer: Viewer, link: Link) -> None:
    """Every response is done, then comes the error, then the close; the place is free."""
    server.run(3.0)
    viewer.read(link)
    assert link.socket.closed == (1011, "internal_error")
    check_close(link, said_goodbye=False)
    assert viewer.heard
    assert {heard.status for heard in viewer.heard.values()} == {"failed"}
    assert viewer.errors == {"internal_error": 1}
    assert server.admission.active == 0
    assert server.desk.sessions == []


def test_what_was_due_while_the_writer_waited_is_not_said_after_the_error(
    server: VirtualServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> Any:
        raise KeyError("nobody thought of this")

    viewer = Viewer(acknowledges=False)
    link = begin(server, viewer)
    block(server, link)
    monkeypatch.setattr(server_handler, "handle_event", faulty)
    link.socket.say("input_audio_buffer.commit")
    server.run(0.5)
    link.socket.go_on_reading()
    check_fault(server, viewer, link)


def test_a_fault_of_the_reader_is_told(
    server: VirtualServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = server_session.message_size

    def faulty(message: Any) -> int:
        if "faulty" in (message.get("text") or ""):
            raise KeyError("nobody thought of this")
        return size(message)

    monkeypatch.setattr(server_session, "message_size", faulty)
    viewer = Viewer(acknowledges=False)
    link = begin(server, viewer)
    block(server, link)
    link.socket.say("session.ping", t=0, event_id="faulty")
    server.run(0.5)
    link.socket.go_on_reading()
    check_fault(server, viewer, link)


def test_a_fault_of_the_writer_is_told(
    server: VirtualServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Conversation, now_s: float) -> Any:
        raise KeyError("nobody thought of this")

    viewer = Viewer(acknowledges=False)
    link = begin(server, viewer)
    monkeypatch.setattr(Conversation, "tick", faulty)
    check_fault(server, viewer, link)
    # What went wrong is for the log.
    assert "nobody thought" not in json.dumps([m for m in link.socket.sent if isinstance(m, str)])


def test_who_says_goodbye_hears_nothing_more(server: VirtualServer) -> None:
    viewer = Viewer(acknowledges=False)
    link = begin(server, viewer)
    block(server, link)
    link.socket.say("session.close", drain=False)
    server.run(0.5)
    link.socket.go_on_reading()
    server.run(1.0)
    viewer.read(link)
    assert link.socket.closed == (1000, "closed_by_client")
    assert json.loads(link.socket.sent[-1])["type"] == "response.done"
    assert [heard.status for heard in viewer.heard.values()] == ["cancelled"]
