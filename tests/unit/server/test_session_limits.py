"""Limits of whole sessions on a virtual clock: while the avatar is prepared, and while held."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from session_viewer import SETTINGS, Viewer, check_close
from virtual_session import RATE, Link, VirtualServer, opened


def begin(server: VirtualServer, viewer: Viewer, *, wait_s: float = 0.1) -> Link:
    link = server.connect()
    link.socket.say("session.update", session=SETTINGS)
    server.run(wait_s)
    viewer.read(link)
    return link


def events(link: Link) -> list[dict[str, Any]]:
    return [json.loads(text) for text in link.socket.sent if isinstance(text, str)]


def come_back(server: VirtualServer, viewer: Viewer) -> Link:
    link = server.connect()
    server.run(0.01)
    viewer.resume(link)
    server.run(1.0)
    viewer.read(link)
    return link


# Lost before the end was announced, after it, and after it was and nobody heard.
@pytest.mark.parametrize(("lost_after_s", "hears"), [(2.0, True), (17.0, True), (17.0, False)])
def test_a_session_that_grew_too_old_while_it_was_held_ends_with_the_usual_words(
    lost_after_s: float, hears: bool
) -> None:
    with opened(max_sessions=1, max_session_s=20.0, resume_ttl_s=30.0) as server:
        viewer = Viewer(acknowledges=False)
        first = begin(server, viewer)
        server.run(lost_after_s - 1.5)
        viewer.read(first)
        server.run(1.5)
        if hears:
            viewer.read(first)
        first.socket.lose(1006)
        server.run(22.0 - lost_after_s)
        second = come_back(server, viewer)
        said = events(second)
        assert [event["type"] for event in said[-2:]] == ["session.expiring", "error"]
        assert (said[-2]["reason"], said[-2]["deadline_s"]) == ("max_duration", 0.0)
        assert second.socket.closed == (4410, "max_duration")
        check_close(second, said_goodbye=False)
        server.run(0.1)
        assert server.admission.active == 0


def test_who_comes_back_shortly_before_the_end_is_told_of_it() -> None:
    with opened(max_sessions=1, max_session_s=20.0, resume_ttl_s=30.0) as server:
        viewer = Viewer(acknowledges=False)
        first = begin(server, viewer)
        server.run(17.0)
        viewer.read(first)
        assert "max_duration" in viewer.warned
        first.socket.lose(1006)
        second = come_back(server, viewer)
        (told,) = [e for e in events(second) if e["type"] == "session.expiring"]
        assert 0 < told["deadline_s"] < 3


def test_nobody_idles_while_the_avatar_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(max_sessions=1, idle_timeout_s=5.0) as server:
        prepare = server.engine.prepare_stored

        async def slow(avatar_id: str, *args: Any) -> Any:
            await asyncio.sleep(30.0)
            return await prepare(avatar_id, *args)

        monkeypatch.setattr(server.engine, "prepare_stored", slow)
        viewer = Viewer(acknowledges=False)
        link = begin(server, viewer, wait_s=31.0)
        assert viewer.configured
        assert viewer.warned == set()
        server.run(4.0)
        assert link.socket.open
        server.run(2.0)
        viewer.read(link)
        assert link.socket.closed == (4408, "idle_timeout")
        assert viewer.errors == {"idle_timeout": 1}
        assert viewer.warned == {"idle"}


def test_what_fails_while_it_is_held_does_not_keep_its_place() -> None:
    with opened(max_sessions=1, resume_ttl_s=60.0) as server:
        viewer = Viewer(acknowledges=False)
        link = begin(server, viewer)
        viewer.speak(link, RATE)
        server.run(0.1)

        def fail(jobs: object) -> None:
            raise RuntimeError("out of memory")

        link.socket.lose(1006)
        server.engine.pipeline.denoise = fail  # type: ignore[method-assign]
        server.run(5.0)
        assert server.admission.active == 0
        assert server.desk.sessions == []
        back = come_back(server, viewer)
        assert [e["error"]["code"] for e in events(back) if e["type"] == "error"] == [
            "resume_expired"
        ]
