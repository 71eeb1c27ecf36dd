"""Anything that clients do, in any order, to whole sessions on a virtual clock.

The same talks every time, unless VISAVIS_RANDOM_TALKS says how many others to have.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)
from session_life import FAULT, IDLE_S, LIMITS, TTL_S, SessionLife
from session_viewer import check_close
from virtual_session import RATE

from visavis.server.event_queue import MAX_EVENTS
from visavis.server.events import IdlePolicy
from visavis.server.inbox import MAX_BYTES
from visavis.server.sent_ring import MAX_EVENTS as MAX_KEPT_EVENTS
from visavis.server.sent_ring import MAX_MEDIA
from visavis.server.turn_planner import MAX_READY_FRAMES

RANDOM_TALKS = int(os.environ.get("VISAVIS_RANDOM_TALKS", "0"))
# What is said: drawn from a seed, since otherwise nearly all is as short as can be.
SPEECH = st.integers(0, 10_000)
# Pairs of samples: next to nothing, odd, a network packet, and longer than the first chunk.
PIECES = (1, 37, 160, RATE // 8, RATE // 2)


def pieces_of(seed: int) -> list[int]:
    return random.Random(seed).choices(PIECES, k=1 + seed % 4)


connected = precondition(lambda self: self.link is not None)
apart = precondition(lambda self: self.link is None and self.viewer is not None)
alone = precondition(lambda self: self.viewer is None and self.draining is None)


class LiveSessions(SessionLife):
    """One place, one client after the other in it, and whatever may happen to them."""

    # Beginning

    @initialize()
    def begin(self) -> None:
        self.open(acknowledges=True, idle="freeze")

    @alone
    @rule(acknowledges=st.booleans(), idle=st.sampled_from(["generate", "loop", "freeze"]))
    def come_anew(self, acknowledges: bool, idle: IdlePolicy) -> None:
        self.open(acknowledges=acknowledges, idle=idle)

    # Talking

    @connected
    @rule(speech=SPEECH, commits=st.booleans(), seconds=st.sampled_from([0.0, 0.3, 2.0]))
    def speak(self, speech: int, commits: bool, seconds: float) -> None:
        assert self.viewer is not None
        assert self.link is not None
        for pairs in pieces_of(speech):
            self.viewer.speak(self.link, pairs)
        if commits:
            self.link.socket.say("input_audio_buffer.commit")
        self.pass_time(seconds)

    @connected
    @rule(
        kind=st.sampled_from(
            [
                "input_audio_buffer.commit",
                "input_audio_buffer.clear",
                "output.request_keyframe",
                "session.ping",
            ]
        )
    )
    def ask(self, kind: str) -> None:
        assert self.link is not None
        self.link.socket.say(kind, **({"t": 1} if kind == "session.ping" else {}))

    @connected
    @rule(
        speech=SPEECH,
        commits=st.booleans(),
        seconds=st.floats(0, 1.5),
        fade_ms=st.sampled_from([0, 200]),
        times=st.integers(1, 2),
    )
    def interrupt(
        self, speech: int, commits: bool, seconds: float, fade_ms: int, times: int
    ) -> None:
        self.speak(speech, commits, seconds)
        for _ in range(times):
            if self.link is not None:
                self.link.socket.say("response.cancel", fade_ms=fade_ms)

    @connected
    @rule(state=st.sampled_from(["idle", "listening"]))
    def set_state(self, state: str) -> None:
        assert self.link is not None
        self.link.socket.say("avatar.set_state", state=state)

    @connected
    @rule(pts_us=st.integers(-1, 10**8), frozen=st.booleans())
    def play_oddly(self, pts_us: int, frozen: bool) -> None:
        """Claim to be anywhere, and from here on say nothing of what is shown, or go on to."""
        assert self.link is not None
        self.link.socket.say("playback.update", pts_us=pts_us)
        self.frozen = frozen

    @rule(seconds=st.floats(0.01, 3.0))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @connected
    @rule(speech=SPEECH, seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def not_read(self, speech: int, seconds: float) -> None:
        self.speak(speech, True, 0.1)
        if self.link is None:
            return
        link = self.link
        link.socket.stop_reading()
        self.pass_time(seconds)
        link.socket.go_on_reading()

    # Ending

    @connected
    @rule(how=st.sampled_from(["leave", "leave at once", "say nothing", "stumble", "fail"]))
    def end(self, how: str) -> None:
        assert self.viewer is not None
        assert self.link is not None
        match how:
            case "leave" | "leave at once":
                self.leave(drain=how == "leave")
            case "say nothing":
                self.pass_time(IDLE_S + 1.0)
            case "stumble":
                self.faults.add("internal_error")
                self.link.socket.say("output.request_keyframe", event_id=FAULT)
                self.pass_time(0.5)
            case _:
                self.break_engine()
                self.viewer.speak(self.link, RATE // 2)
                self.pass_time(1.0)

    # Coming and going

    @connected
    @rule(
        code=st.sampled_from([1001, 1005, 1006]),
        unheard=st.integers(0, 30),
        said=SPEECH,
        commits=st.booleans(),
        unsaid=SPEECH,
        seconds=st.floats(0, 0.5),
    )
    def lose_connection(
        self, code: int, unheard: int, said: int, commits: bool, unsaid: int, seconds: float
    ) -> None:
        """The last messages of either side are lost with it."""
        self.speak(said, commits, 0.0)
        assert self.viewer is not None
        assert self.link is not None
        self.server.run(seconds)
        kept = max(self.link.read, len(self.link.socket.sent) - unheard)
        if not self.link.socket.open:
            return
        del self.link.socket.sent[kept:]
        self.viewer.read(self.link)
        for pairs in pieces_of(unsaid)[1:]:
            self.viewer.speak(self.link, pairs, arrives=False)
        self.link.socket.lose(code)
        left, self.link = self.link, None
        self.apart_since_s = self.server.loop.time()
        self.server.run(0.01)
        assert left.task.done()
        # Who left and is still listening to the end may come back for the rest.
        held = self.said_goodbye and self.server.desk.sessions
        if self.draining is not None or (self.said_goodbye and not held):
            self.gone()

    @apart
    @rule(seconds=st.floats(0, TTL_S - 1.0))
    def come_back(self, seconds: float) -> None:
        self.server.run(seconds)
        if self.draining is not None:
            self.gone()
            return
        self.reconnect()

    @connected
    @rule(unheard=st.integers(0, 10))
    def take_over(self, unheard: int) -> None:
        """A newer connection, while the older one still stands."""
        assert self.viewer is not None
        assert self.link is not None
        older = self.link
        if self.draining is not None or self.said_goodbye or self.faults:
            return
        self.viewer.read(older)
        self.reconnect()
        assert older.socket.closed == (4409, "taken_over")
        check_close(older, said_goodbye=False)

    @apart
    @rule()
    def never_come_back(self) -> None:
        self.server.run(TTL_S + 0.5)
        assert self.viewer is not None
        self.gone()

    @precondition(lambda self: self.draining is None)
    @rule(timeout_s=st.sampled_from([0.0, 2.0, 20.0]))
    def stop_server(self, timeout_s: float) -> None:
        self.draining = self.server.drain(timeout_s)
        self.pass_time(0.3)
        if self.viewer is not None and self.link is None:
            self.gone()

    # What holds at any time

    @invariant()
    def every_queue_is_bounded(self) -> None:
        for live in self.server.desk.sessions:
            assert live.conversation is not None
            still = {0, *(response.index for response in live.conversation.open_responses)}
            assert {frame.response for frame in live.conversation.ready} <= still
            # One chunk may be begun while almost one is ready.
            assert len(live.conversation.ready) <= 2 * MAX_READY_FRAMES
            assert live.conversation.buffered_ms <= LIMITS["max_buffered_input_ms"]
            assert len(live.out._events) <= MAX_EVENTS
            assert len(live.out.ring.media) <= MAX_MEDIA
            assert len(live.out.ring._events) <= MAX_KEPT_EVENTS
        for link in self.server.links:
            assert link.session._inbox._bytes <= MAX_BYTES

    @invariant()
    def nothing_is_written_after_the_close(self) -> None:
        assert not any(link.socket.wrote_after_close for link in self.server.links)

    @invariant()
    def one_place_one_session(self) -> None:
        assert self.server.admission.active == len(self.server.desk.sessions) <= 1

    @invariant()
    def audio_is_whole(self) -> None:
        if self.viewer is not None:
            self.viewer.check_audio()


TestLiveSessions = LiveSessions.TestCase
TestLiveSessions.settings = settings(
    max_examples=RANDOM_TALKS or 20,
    stateful_step_count=30,
    phases=[Phase.generate],
    deadline=None,
    # A whole server is too much to shrink: what fails is told as it was, and how to have it again.
    derandomize=not RANDOM_TALKS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
