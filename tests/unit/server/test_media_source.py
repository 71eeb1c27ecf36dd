"""Pictures are left out before sound, up to a keyframe, and each is counted and told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from visavis.server.conversation import FRAME_US, Conversation, MediaFrame
from visavis.server.encoder import H264Encoder
from visavis.server.media_source import MediaSource
from visavis.server.pacing import OVERDUE_S, Pacer
from visavis.server.protocol import Flag
from visavis.server.recode import Recoder

RATE = 16_000
LIMIT_US = 200_000


class Line:
    """A conversation, its source and a client whose clock the test moves."""

    def __init__(self) -> None:
        self.talk = Conversation(rate=RATE, max_buffered_input_ms=1000)
        pacer = Pacer(speech_lead_s=1.12, idle_lead_s=0.24, max_inflight_us=LIMIT_US)
        self.pacer = pacer
        self.source = MediaSource(self.talk, pacer)
        self.ordinal = 0

    def offer(self, count: int, *, keyframe: bool = False) -> None:
        for _ in range(count):
            frame = MediaFrame(
                generation=self.talk.generation,
                response=0,
                audio=bytes(1280),
                video=b"picture",
                keyframe=keyframe,
                ordinal=self.ordinal,
            )
            self.ordinal += 1
            self.talk.offer(frame)

    def send_all(self, now_s: float) -> list[bool]:
        """Send what may go now; whether each frame had its picture."""
        sent = []
        while (wait_s := self.source.wait_s(now_s)) is not None and wait_s <= 0:
            stamped = self.source.take(now_s)
            assert stamped.header.audio_len == 1280
            sent.append(stamped.header.video_len > 0)
        return sent


def stalled() -> tuple[Line, float]:
    """A client that acknowledged the first frame and then nothing for a while."""
    line = Line()
    line.offer(1, keyframe=True)
    assert line.send_all(0.0) == [True]
    line.pacer.acknowledge(0, 0.0)
    line.offer(30)
    line.send_all(0.05)
    return line, 0.25 + OVERDUE_S


def test_a_stalled_client_gets_sound_without_pictures() -> None:
    line, now_s = stalled()
    pictures = line.send_all(now_s)
    assert pictures
    assert not any(pictures)
    assert line.source.dropped == len(pictures)
    assert line.talk.next_pts_us - LIMIT_US <= 2 * LIMIT_US


def test_after_it_caught_up_pictures_begin_at_a_keyframe() -> None:
    line, now_s = stalled()
    line.send_all(now_s)
    assert line.talk.take_input().keyframe
    line.talk.ready.clear()
    line.offer(2)
    line.offer(1, keyframe=True)
    line.offer(1)
    # The last frame sent is on screen.
    line.pacer.acknowledge(line.talk.next_pts_us - FRAME_US, now_s)
    assert line.send_all(now_s + 0.2) == [False, False, True, True]


def test_pictures_left_out_are_told_once() -> None:
    line, now_s = stalled()
    count = len(line.send_all(now_s))
    (event,) = line.source.dropped_events(now_s)
    assert (event.frames, event.reason) == (count, "slow_client")  # type: ignore[attr-defined]
    assert line.source.dropped_events(now_s + 5) == []


def test_pictures_that_came_too_late_are_told_as_such() -> None:
    line = Line()
    line.offer(3, keyframe=True)
    line.talk.ready[1] = replace(line.talk.ready[1], video=b"", keyframe=False, late=True)
    assert line.send_all(0.0) == [True, False, True]
    (event,) = line.source.dropped_events(0.0)
    assert (event.frames, event.reason) == (1, "late")  # type: ignore[attr-defined]
    assert line.source.dropped == 1


def test_a_client_that_keeps_up_loses_nothing() -> None:
    line = Line()
    now_s, shown = 0.0, []
    for step in range(50):
        line.offer(1, keyframe=step == 0)
        shown += line.send_all(now_s)
        now_s += 0.04
        line.pacer.acknowledge(step * FRAME_US, now_s)
    assert shown == [True] * 50
    assert line.source.dropped == 0


def test_after_a_resume_pictures_are_made_anew_until_a_keyframe_comes() -> None:
    encoder = H264Encoder((64, 64))
    flat = np.zeros((64, 64, 3), np.uint8)
    units = [encoder.encode(flat + n, keyframe=False)[0] for n in range(4)]
    line = Line()
    line.offer(1, keyframe=True)
    line.send_all(0.0)
    recoder = Recoder(fps=25)
    recoder.see(units[0])
    line.source.restart(line.talk.next_index, 5.0, recoder)
    keyframes = []
    for unit in units[1:]:
        line.offer(1)
        line.talk.ready[0] = replace(line.talk.ready[0], video=unit)
        keyframes.append(Flag.KEYFRAME in line.source.take(5.0).header.flags)
    assert keyframes == [True, False, False]
    line.offer(1, keyframe=True)
    assert line.source.take(5.0).frame.video == b"picture"
