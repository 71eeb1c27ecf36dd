"""The session's state machine: whatever is interleaved, each response ends exactly once."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from visavis.server import events as ev
from visavis.server.conversation import FRAME_US, Conversation, EngineInput, MediaFrame
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import Flag

RATE = 16_000
SAMPLES = RATE // 25


def conversation(max_buffered_input_ms: int = 30_000) -> Conversation:
    return Conversation(rate=RATE, max_buffered_input_ms=max_buffered_input_ms)


def pcm(frames: float) -> bytes:
    return bytes(2 * int(frames * SAMPLES))


def media(talk: Conversation, response: int, *, last: bool = False) -> MediaFrame:
    return MediaFrame(
        generation=talk.generation,
        response=response,
        audio=pcm(1),
        video=b"v",
        keyframe=False,
        last=last,
    )


def speak(talk: Conversation, frames: int, name: str | None = None) -> list[ev.ServerEvent]:
    """Append, commit, and let an ideal engine generate it all at once."""
    events = talk.append(pcm(frames), name, 0.0)
    events += talk.commit(name)
    taken = talk.take_input()
    for number in range(frames):
        talk.offer(media(talk, taken.response, last=number == frames - 1))
    return events + _report(talk, taken, finished=True)


def _report(talk: Conversation, taken: EngineInput, *, finished: bool) -> list[ev.ServerEvent]:
    return talk.report(
        generation=taken.generation,
        response=taken.response,
        buffered_samples=0,
        finished=finished,
        now_s=0.0,
    )


def send_all(talk: Conversation, now_s: float = 0.0) -> list[Any]:
    """Headers and events in the order of the wire."""
    sent: list[Any] = []
    while talk.ready:
        stamped = talk.stamp(now_s, playback_end_s=now_s)
        sent += [*stamped.before, stamped.header, *stamped.after]
    return sent


def names(events: list[Any]) -> list[str]:
    return [ev.event_type(type(e)) for e in events if isinstance(e, ev.ServerEvent)]


def test_one_utterance_from_created_to_done() -> None:
    talk = conversation()
    events = speak(talk, 3)
    assert names(events) == [
        "response.created",
        "input_audio_buffer.appended",
        "input_audio_buffer.committed",
    ]
    sent = send_all(talk)
    assert names(sent) == ["response.started", "avatar.state_changed", "response.done"]
    headers = [item for item in sent if not isinstance(item, ev.ServerEvent)]
    assert [h.flags for h in headers] == [Flag.FIRST, Flag(0), Flag.LAST]
    assert [h.pts_us for h in headers] == [0, FRAME_US, 2 * FRAME_US]
    done = sent[-1]
    assert (done.status, done.generated_ms, done.sent_ms, done.played_ms) == (
        "completed",
        120.0,
        120.0,
        None,
    )


def test_a_response_is_done_only_when_its_last_frame_was_sent() -> None:
    talk = conversation()
    speak(talk, 2)
    assert not talk.stamp(0.0, playback_end_s=0.0).after
    assert names(talk.stamp(0.0, playback_end_s=0.0).after) == ["response.done"]


def test_an_utterance_that_ends_after_its_frames_were_sent_is_done() -> None:
    talk = conversation()
    talk.append(pcm(1), None, 0.0)
    taken = talk.take_input()
    talk.offer(media(talk, taken.response))
    _report(talk, taken, finished=False)
    send_all(talk)
    talk.commit(None)
    assert names(_report(talk, talk.take_input(), finished=True)) == ["response.done"]


def test_with_acknowledgements_done_waits_for_playback() -> None:
    talk = conversation()
    talk.playback(0, 0.0)
    speak(talk, 3)
    assert "response.done" not in names(send_all(talk))
    assert talk.playback(FRAME_US, 0.1) == []
    (done,) = talk.playback(2 * FRAME_US, 0.2)
    assert isinstance(done, ev.ResponseDone)
    assert done.played_ms == 120.0


def test_without_further_acknowledgements_done_comes_after_a_grace() -> None:
    talk = conversation()
    talk.playback(0, 0.0)
    speak(talk, 3)
    send_all(talk, now_s=5.0)
    assert talk.tick(5.9) == []
    (done,) = talk.tick(6.1)
    assert isinstance(done, ev.ResponseDone)
    assert (done.status, done.played_ms) == ("completed", 40.0)


def test_acknowledgements_beyond_what_was_sent_count_for_nothing() -> None:
    talk = conversation()
    talk.playback(10**15, 0.0)
    assert talk.played_pts_us == 0


def test_cancel_clears_first_and_says_how_much_was_played() -> None:
    talk = conversation()
    talk.playback(0, 0.0)
    speak(talk, 5)
    for _ in range(3):
        talk.stamp(0.0, playback_end_s=0.0)
    talk.playback(FRAME_US, 0.0)
    cleared, done, state = talk.cancel()
    assert isinstance(cleared, ev.OutputCleared)
    assert (cleared.epoch, cleared.from_pts_us) == (1, 3 * FRAME_US)
    assert isinstance(done, ev.ResponseDone)
    assert (done.status, done.sent_ms, done.played_ms) == ("cancelled", 120.0, 80.0)
    assert isinstance(state, ev.StateChanged)
    assert not talk.ready
    assert talk.take_input().reset


def test_the_first_frame_of_an_epoch_is_marked() -> None:
    talk = conversation()
    talk.cancel()
    talk.offer(media(talk, 0))
    talk.offer(media(talk, 0))
    first, second = (talk.stamp(0.0, playback_end_s=0.0).header for _ in range(2))
    assert (first.epoch, second.epoch) == (1, 1)
    assert first.flags == Flag.DISCONTINUITY | Flag.IDLE
    assert second.flags == Flag.IDLE


def test_frames_made_before_a_cancel_are_refused() -> None:
    talk = conversation()
    talk.append(pcm(1), None, 0.0)
    frame = media(talk, talk.take_input().response)
    talk.cancel()
    assert not talk.offer(frame)


def test_audio_under_way_to_a_cancelled_response_is_dropped() -> None:
    talk = conversation()
    talk.append(pcm(1), "late", 0.0)
    talk.cancel("late")
    assert talk.append(pcm(1), "late", 0.0) == []
    assert talk.commit("late") == []
    assert not talk.has_open_responses


def test_cancelling_a_waiting_response_leaves_the_speaking_one_alone() -> None:
    talk = conversation()
    speak(talk, 2, "first")
    talk.stamp(0.0, playback_end_s=0.0)
    talk.append(pcm(1), "second", 0.0)
    (done,) = talk.cancel("second")
    assert isinstance(done, ev.ResponseDone)
    assert (done.response_id, done.status) == ("second", "cancelled")
    assert talk.epoch == 0
    (finished,) = talk.stamp(0.0, playback_end_s=0.0).after
    assert isinstance(finished, ev.ResponseDone)
    assert (finished.response_id, finished.status) == ("first", "completed")


def test_clear_takes_back_what_the_engine_has_not_seen() -> None:
    talk = conversation()
    talk.append(pcm(2), None, 0.0)
    assert talk.take_input().audio == (pcm(2),)
    talk.append(pcm(3), None, 0.0)
    (cleared,) = talk.clear()
    assert isinstance(cleared, ev.AudioCleared)
    assert cleared.dropped_ms == 120.0
    committed = talk.commit(None)[0]
    assert isinstance(committed, ev.AudioCommitted)
    assert committed.duration_ms == 80.0


def test_clear_of_an_unseen_utterance_ends_it() -> None:
    talk = conversation()
    talk.append(pcm(2), None, 0.0)
    assert names(talk.clear()) == ["input_audio_buffer.cleared", "response.done"]
    assert not talk.has_input


def test_overflow_refuses_the_whole_chunk_and_keeps_what_was_there() -> None:
    talk = conversation(max_buffered_input_ms=100)
    talk.append(pcm(2), None, 0.0)
    with pytest.raises(ProtocolError) as caught:
        talk.append(pcm(1), None, 0.0)
    assert caught.value.code is ErrorCode.INPUT_BUFFER_OVERFLOW
    assert talk.buffered_ms == 80.0


def test_a_response_that_could_not_be_created_leaves_no_trace() -> None:
    talk = conversation(max_buffered_input_ms=10)
    with pytest.raises(ProtocolError):
        talk.append(pcm(1), None, 0.0)
    assert not talk.has_open_responses


def test_commit_without_audio_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        conversation().commit(None)
    assert caught.value.code is ErrorCode.INPUT_BUFFER_EMPTY


def test_an_id_can_be_used_for_one_utterance_at_a_time() -> None:
    talk = conversation()
    talk.append(pcm(1), "a", 0.0)
    with pytest.raises(ProtocolError, match="commit that one first"):
        talk.append(pcm(1), "b", 0.0)
    talk.commit("a")
    with pytest.raises(ProtocolError, match="use a new id"):
        talk.append(pcm(1), "a", 0.0)


def test_base_state_shows_again_after_speech() -> None:
    talk = conversation()
    assert names(talk.set_base_state("listening")) == ["avatar.state_changed"]
    speak(talk, 1)
    send_all(talk)
    talk.offer(media(talk, 0))
    (change,) = talk.stamp(0.0, playback_end_s=0.0).before
    assert isinstance(change, ev.StateChanged)
    assert (change.state, change.pts_us) == ("listening", FRAME_US)


def test_appended_events_are_coalesced() -> None:
    talk = conversation()
    events = [e for i in range(100) for e in talk.append(pcm(0.5), None, i * 0.02)]
    assert names(events).count("input_audio_buffer.appended") <= 5


class Interleavings(RuleBasedStateMachine):
    """A client that does anything at any time, and an engine that may be slow or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = conversation(max_buffered_input_ms=2_000)
        self.now_s = 0.0
        self.created: list[str] = []
        self.started: list[str] = []
        self.done: Counter[str] = Counter()
        self.headers: list[Any] = []
        self.fed: dict[int, int] = {}
        self.taken: EngineInput | None = None
        self.closed = False

    def see(self, events: list[ev.ServerEvent]) -> None:
        for event in events:
            if isinstance(event, ev.ResponseCreated):
                self.created.append(event.response_id)
            elif isinstance(event, ev.ResponseStarted):
                assert event.response_id in self.created
                assert not self.done[event.response_id]
                self.started.append(event.response_id)
            elif isinstance(event, ev.ResponseDone):
                assert event.response_id in self.created
                self.done[event.response_id] += 1
                if event.status == "completed":
                    assert event.sent_ms == event.generated_ms

    @rule(frames=st.integers(0, 60), name=st.sampled_from([None, "a", "b", "c"]))
    def append(self, frames: int, name: str | None) -> None:
        before = self.talk.buffered_ms
        try:
            self.see(self.talk.append(pcm(frames), name, self.now_s))
        except ProtocolError:
            assert self.talk.buffered_ms == before

    @rule(name=st.sampled_from([None, "a", "b"]))
    def commit(self, name: str | None) -> None:
        with contextlib.suppress(ProtocolError):
            self.see(self.talk.commit(name))

    @rule()
    def clear(self) -> None:
        self.see(self.talk.clear())

    @rule(name=st.sampled_from([None, "a", "b", "c"]))
    def cancel(self, name: str | None) -> None:
        epoch = self.talk.epoch
        self.see(self.talk.cancel(name))
        assert self.talk.epoch in (epoch, epoch + 1)

    @precondition(lambda self: self.taken is None)
    @rule()
    def engine_takes(self) -> None:
        self.taken = self.talk.take_input()

    @precondition(lambda self: self.taken is not None)
    @rule(frames=st.integers(0, 5), finish=st.booleans())
    def engine_answers(self, frames: int, finish: bool) -> None:
        taken, self.taken = self.taken, None
        assert taken is not None
        for number in range(frames):
            frame = MediaFrame(
                generation=taken.generation,
                response=taken.response,
                audio=b"",
                video=b"",
                keyframe=False,
                last=finish and number == frames - 1,
            )
            self.talk.offer(frame)
        finished = taken.commit and finish
        self.see(
            self.talk.report(
                generation=taken.generation,
                response=taken.response,
                buffered_samples=0,
                finished=finished,
                now_s=self.now_s,
            )
        )

    @precondition(lambda self: bool(self.talk.ready))
    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        for _ in range(min(count, len(self.talk.ready))):
            stamped = self.talk.stamp(self.now_s, playback_end_s=self.now_s + 0.5)
            self.see(stamped.before)
            self.headers.append(stamped.header)
            self.see(stamped.after)

    @rule(pts_us=st.integers(-1, 10**7))
    def acknowledge(self, pts_us: int) -> None:
        self.see(self.talk.playback(pts_us, self.now_s))

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.see(self.talk.tick(self.now_s))

    @rule(status=st.sampled_from(["cancelled", "failed"]))
    def close(self, status: ev.ResponseStatus) -> None:
        self.see(self.talk.close(status, "over"))
        self.closed = True

    @invariant()
    def at_most_once(self) -> None:
        assert all(count == 1 for count in self.done.values())
        assert len(set(self.started)) == len(self.started)

    @invariant()
    def done_or_open(self) -> None:
        open_ids = {response.id for response in self.talk.open_responses}
        assert {name for name in self.created if not self.done[name]} == open_ids

    @invariant()
    def one_timeline(self) -> None:
        assert [h.pts_us for h in self.headers] == [i * FRAME_US for i in range(len(self.headers))]
        epochs = [h.epoch for h in self.headers]
        assert epochs == sorted(epochs)

    def teardown(self) -> None:
        self.see(self.talk.close("cancelled", "end of test"))
        assert set(self.created) == {name for name, count in self.done.items() if count == 1}


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
