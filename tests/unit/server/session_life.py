"""One place, one client after the other in it: what happens to them over time, and what has to hold
when they part."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine
from session_viewer import Viewer, check_close
from virtual_session import RATE, Link, opened

import visavis.server.message_handler as server_handler
from visavis.server.events import IdlePolicy

TTL_S = 8.0
IDLE_S = 20.0
SLOW_S = 3.0
ACK_EVERY_S = 0.4
# Wide enough to be fine, tight enough to be reached.
LIMITS = {
    "max_sessions": 1,
    "max_queued_sessions": 0,
    "resume_ttl_s": TTL_S,
    "idle_timeout_s": IDLE_S,
    "max_session_s": 90.0,
    "slow_client_s": SLOW_S,
    "stats_every_s": 0.2,
    "max_buffered_input_ms": 6_000,
    "degrade": (),
}


# An event with this id makes the server stumble.
FAULT = "fault"


@contextmanager
def stumbling() -> Iterator[None]:
    handle = server_handler.handle_event

    def faulty(live: Any, event: Any, now_s: float) -> Any:
        if event.event_id == FAULT:
            raise KeyError("nobody thought of this")
        return handle(live, event, now_s)

    server_handler.handle_event = faulty
    try:
        yield
    finally:
        server_handler.handle_event = handle


class SessionLife(RuleBasedStateMachine):
    """The rules and invariants are for those who inherit."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._stack.enter_context(stumbling())
        self.server = self._stack.enter_context(opened(**LIMITS))
        self.viewer: Viewer | None = None
        self.link: Link | None = None
        self.said_goodbye = False
        self.draining: asyncio.Task[None] | None = None
        self.frozen = False
        self.apart_since_s = 0.0
        self.faults: set[str] = set()
        self._denoise = self.server.engine.pipeline.denoise

    # Time

    def pass_time(self, seconds: float = 0.01) -> None:
        """Let time pass; the client reads meanwhile, and says what it shows."""
        while seconds > 0:
            step_s = min(seconds, ACK_EVERY_S)
            self.server.run(step_s)
            seconds -= step_s
            self.look()
            if self.link is None or self.viewer is None or self.frozen:
                continue
            if self.viewer.acknowledges:
                self.viewer.acknowledge(self.link)

    def look(self) -> None:
        """Read what came; part if the server has closed the connection."""
        if self.link is None or self.viewer is None:
            return
        self.viewer.read(self.link)
        if not self.link.socket.open:
            self.part()

    def part(self) -> None:
        """The server closed the connection, for good."""
        link, viewer = self.link, self.viewer
        assert link is not None
        assert viewer is not None
        assert link.socket.closed is not None
        self.server.run(0.01)
        viewer.read(link)
        check_close(link, said_goodbye=self.said_goodbye)
        code, reason = link.socket.closed
        if reason == "resume_expired" and not self.faults:
            assert self.server.loop.time() - self.apart_since_s >= TTL_S
        elif reason != "resume_expired" and not link.socket.was_blocked:
            assert not viewer.undone
        if code == 1000:
            viewer.check_nothing_lost()
        if code == 4410:
            assert "max_duration" in viewer.warned
        if reason == "idle_timeout":
            assert "idle" in viewer.warned
        if code == 1012:
            assert self.draining is not None
            assert "server_draining" in viewer.warned
        self.gone()

    def gone(self) -> None:
        """The session is over: nothing of it is left."""
        assert self.viewer is not None
        self.server.run(1.5)
        self.viewer.check_audio()
        for code in ("internal_error", "engine_failed"):
            assert code in self.faults or not self.viewer.errors[code]
        self.mend_engine()
        self.faults.clear()
        self.viewer, self.link = None, None
        assert self.server.admission.active == 0
        assert self.server.desk.sessions == []
        assert all(link.task.done() for link in self.server.links)

    def open(self, *, acknowledges: bool, idle: IdlePolicy) -> None:
        self.viewer = Viewer(acknowledges=acknowledges)
        self.link = self.server.connect()
        self.said_goodbye = self.frozen = False
        session = {
            "avatar_id": "anyone",
            "input_audio": {"format": "pcm16", "rate": RATE},
            "output": {"video": "jpeg"},
            "idle": idle,
            "on_disconnect": "hold",
        }
        self.link.socket.say("session.update", session=session)
        self.pass_time(0.1)
        assert self.viewer is not None
        assert self.viewer.configured, "the place of the one before was not given back"

    def reconnect(self) -> None:
        assert self.viewer is not None
        self.link = self.server.connect()
        self.server.run(0.01)
        self.viewer.resume(self.link)
        self.server.run(0.01)
        self.look()

    # Faults

    def break_engine(self) -> None:
        """The next chunk fails."""

        def fail(jobs: object) -> None:
            raise RuntimeError("out of memory")

        self.server.engine.pipeline.denoise = fail  # type: ignore[method-assign]
        self.faults.add("engine_failed")

    def mend_engine(self) -> None:
        self.server.engine.pipeline.denoise = self._denoise  # type: ignore[method-assign]

    # The end

    def leave(self, *, drain: bool) -> None:
        assert self.link is not None
        self.said_goodbye = True
        self.link.socket.say("session.close", drain=drain)
        self.pass_time(0.3)

    def teardown(self) -> None:
        """Whatever has happened, the session comes to a good end."""
        try:
            self.come_to_an_end()
        finally:
            self._stack.close()
            gc.collect()

    def come_to_an_end(self) -> None:
        self.frozen = False
        if self.viewer is not None and self.link is None:
            self.come_back(0.0)
        for _ in range(40):
            if self.link is None:
                break
            if not self.said_goodbye:
                self.link.socket.say("input_audio_buffer.commit")
            if self.viewer is not None and not self.viewer.undone:
                self.leave(drain=True)
            self.pass_time(1.0)
        assert self.viewer is None
        if self.draining is not None:
            self.server.run(30.0)
            assert self.draining.done()
