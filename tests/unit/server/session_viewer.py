"""A client that keeps account of all that one session says, and objects to what may not be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from virtual_session import HEADER, RATE, Link, Microphone, VirtualServer, pairs_of

from visavis.server.errors import ERRORS, ErrorCode

FRAME_US = 40_000
FRAME_PAIRS = RATE // 25 // 2
LAST = 4


@dataclass
class Heard:
    """What came of one response."""

    pairs: list[int] = field(default_factory=list)
    complete: bool = False
    committed_ms: float | None = None
    status: str | None = None


class Viewer:
    """One session, over all its connections. Audio goes out and comes back by `Microphone`."""

    def __init__(self, *, acknowledges: bool) -> None:
        self.acknowledges = acknowledges
        self.microphone = Microphone()
        self.said: list[tuple[int, bytes]] = []
        self.ends: set[int] = set()
        self.next_audio_seq = 0
        self.handle: str | None = None
        self.session_id: str | None = None
        self.configured = False
        self.events: dict[str, str] = {}
        self.last_event_id: str | None = None
        self.last_seq: int | None = None
        self.epoch = 0
        self.cleared_epoch = 0
        self.heard: dict[str, Heard] = {}
        self.by_index: dict[int, str] = {}
        self.errors: Counter[str] = Counter()
        self.warned: set[str] = set()
        self.cleared_ms = 0.0
        self._gap_allowed = False
        self._resuming = False
        self._played_us = 0

    # Saying

    def speak(self, link: Link, pairs: int, *, arrives: bool = True) -> None:
        """Say something; unless it `arrives`, the connection breaks before it is out."""
        pcm = self.microphone.take(pairs)
        self.said.append((self.next_audio_seq, pcm))
        self.ends.add(self.microphone.pairs)
        if arrives:
            link.socket.say_audio(self.next_audio_seq, pcm)
        self.next_audio_seq += 1

    def acknowledge(self, link: Link) -> None:
        """All that came is on screen."""
        if self.last_seq is not None:
            link.socket.say("playback.update", pts_us=self._played_us)

    def resume(self, link: Link) -> None:
        """Ask for the session on a new connection."""
        fields: dict[str, Any] = {"handle": self.handle, "last_event_id": self.last_event_id}
        if self.last_seq is not None:
            fields["last_seq"] = self.last_seq
        self._resuming = True
        link.socket.say("session.resume", **fields)

    # Hearing

    def read(self, link: Link) -> None:
        """All that has come."""
        unread = link.unread
        link.read = len(link.socket.sent)
        for message in unread:
            if isinstance(message, bytes):
                self._on_media(message)
            else:
                self._on_event(json.loads(message), message, link)

    def _on_event(self, event: dict[str, Any], text: str, link: Link) -> None:
        kind = event["type"]
        if kind == "error":
            self.errors[event["error"]["code"]] += 1
        if kind == "session.created" and self._resuming:
            return  # of a session that never will be
        if kind == "session.resumed":
            self._on_resumed(event, link)
        if self._resuming and kind == "error":
            return
        event_id = event["event_id"]
        if event_id in self.events:
            assert self.events[event_id] == text, "two events have the same id"
            return
        self.events[event_id] = text
        self.last_event_id = event_id
        react = getattr(self, "_on_" + kind.replace(".", "_"), None)
        if react is not None:
            react(event)

    def _on_session_created(self, event: dict[str, Any]) -> None:
        self.session_id, self.handle = event["session_id"], event["resume"]["handle"]

    def _on_session_updated(self, event: dict[str, Any]) -> None:
        self.configured = True

    def _on_resumed(self, event: dict[str, Any], link: Link) -> None:
        assert event["session_id"] == self.session_id
        # Less than two seconds of media were lost, and less than 256 events: all come again.
        assert event["lost_frames"] == 0
        assert event["epoch"] >= self.epoch
        expected = 0 if self.last_seq is None else self.last_seq + 1
        # What was void by then need not come.
        assert event["from_seq"] == expected or event["epoch"] > self.epoch, (event, expected)
        assert event["from_seq"] >= expected
        self._gap_allowed = event["epoch"] > self.epoch
        self._resuming = False
        self.handle = event["resume"]["handle"]
        received = -1 if event["received_seq"] is None else event["received_seq"]
        for seq, pcm in self.said:
            if seq > received:
                link.socket.say_audio(seq, pcm)

    def _on_response_created(self, event: dict[str, Any]) -> None:
        assert event["response_id"] not in self.heard
        self.heard[event["response_id"]] = Heard()
        self.by_index[event["response_index"]] = event["response_id"]
        assert event["response_index"] == len(self.heard)

    def _on_response_started(self, event: dict[str, Any]) -> None:
        heard = self.heard[event["response_id"]]
        assert heard.status is None
        assert not heard.pairs

    def _on_response_done(self, event: dict[str, Any]) -> None:
        heard = self.heard[event["response_id"]]
        assert heard.status is None, "a response is done once"
        heard.status = event["status"]
        if heard.status == "completed":
            assert heard.complete
            assert event["sent_ms"] == event["generated_ms"]

    def _on_input_audio_buffer_committed(self, event: dict[str, Any]) -> None:
        self.heard[event["response_id"]].committed_ms = event["duration_ms"]

    def _on_input_audio_buffer_cleared(self, event: dict[str, Any]) -> None:
        self.cleared_ms += event["dropped_ms"]

    def _on_output_cleared(self, event: dict[str, Any]) -> None:
        assert event["epoch"] == self.cleared_epoch + 1, "epochs count up, and each is told"
        self.cleared_epoch = event["epoch"]

    def _on_session_expiring(self, event: dict[str, Any]) -> None:
        self.warned.add(event["reason"])

    def _on_media(self, message: bytes) -> None:
        kind, flags, _, seq, pts_us, epoch, index, audio_len, video_len = HEADER.unpack_from(
            message
        )
        assert kind == 2
        assert len(message) == HEADER.size + audio_len + video_len
        assert seq * FRAME_US == pts_us
        if not self._gap_allowed:
            assert seq == (0 if self.last_seq is None else self.last_seq + 1)
        assert self.last_seq is None or seq > self.last_seq
        self._gap_allowed = False
        self.last_seq, self._played_us = seq, pts_us
        assert epoch >= self.epoch
        assert epoch == self.cleared_epoch, "no media of an epoch that is over or not told yet"
        self.epoch = epoch
        audio = message[HEADER.size : HEADER.size + audio_len]
        if index:
            self._on_speech(self.heard[self.by_index[index]], flags, audio)

    def _on_speech(self, heard: Heard, flags: int, audio: bytes) -> None:
        assert not heard.complete, "nothing comes after the last frame"
        pairs = pairs_of(audio)
        last = bool(flags & LAST)
        assert len(pairs) == FRAME_PAIRS or (last and 0 < len(pairs) < FRAME_PAIRS)
        heard.pairs += pairs
        heard.complete = last

    # Accounts

    @property
    def refusals(self) -> int:
        """Pieces that the server said it would not take."""
        full = (ErrorCode.INPUT_BUFFER_OVERFLOW, ErrorCode.INPUT_RATE_EXCEEDED)
        return sum(self.errors[code] for code in full)

    def check_audio(self) -> None:
        """What was said comes back once, in order, and all of a response that was completed."""
        numbers = [pair for heard in self.heard.values() for pair in heard.pairs]
        assert all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
        for heard in self.heard.values():
            if heard.status != "completed":
                continue
            assert heard.committed_ms is not None
            assert len(heard.pairs) == round(heard.committed_ms * RATE / 2000)
            if not self.refusals and not self.cleared_ms:
                first, last = heard.pairs[0], heard.pairs[-1]
                assert heard.pairs == list(range(first, last + 1)), "samples were lost"
                assert last + 1 in self.ends
                assert first == 0 or first in self.ends

    def check_nothing_lost(self) -> None:
        """Where all was answered and nothing refused or dropped, every sample said came back."""
        completed = all(heard.status == "completed" for heard in self.heard.values())
        if completed and not self.refusals and not self.cleared_ms:
            numbers = [pair for heard in self.heard.values() for pair in heard.pairs]
            assert numbers == list(range(self.microphone.pairs))

    @property
    def undone(self) -> list[str]:
        """Responses that are not done, as far as this client has heard."""
        return [name for name, heard in self.heard.items() if heard.status is None]


def check_close(link: Link, *, said_goodbye: bool) -> None:
    """An error came right before each close that is one, and its code says so."""
    assert link.socket.closed is not None
    code, _ = link.socket.closed
    if code == 1000:
        assert said_goodbye
        return
    if link.socket.was_blocked:
        return  # nothing could be said to it
    last = link.socket.sent[-1]
    assert isinstance(last, str), f"closed with {code} after media"
    event = json.loads(last)
    assert event["type"] == "error", f"closed with {code} after {event['type']}"
    assert ERRORS[ErrorCode(event["error"]["code"])].close == code


# A session without pictures, held when its connection is lost.
SETTINGS = {
    "avatar_id": "anyone",
    "input_audio": {"format": "pcm16", "rate": RATE},
    "output": {"video": "none"},
    "idle": "freeze",
    "on_disconnect": "hold",
}


def configured(server: VirtualServer) -> Link:
    """A connection whose session has `SETTINGS`."""
    link = server.connect()
    link.socket.say("session.update", session=SETTINGS)
    server.run(0.1)
    return link
