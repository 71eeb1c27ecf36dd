"""Which media goes out next: pacing, the client's credit, pictures left out. No I/O."""

from __future__ import annotations

from dataclasses import replace

from visavis.server import events as ev
from visavis.server.conversation import Conversation
from visavis.server.pacing import Credit, Pacer
from visavis.server.protocol import FRAME_US
from visavis.server.recode import Recoder
from visavis.server.timeline import Stamped

DROPPED_EVERY_S = 1.0


class MediaSource:
    """The conversation's ready frames on the pacer's clock.

    When the client is behind, pictures are left out before sound, up to the next keyframe after it
    caught up; `dropped` counts them, and those that the engine left out because they came late.
    """

    def __init__(self, conversation: Conversation, pacer: Pacer) -> None:
        self.dropped = 0
        self._conversation = conversation
        self._pacer = pacer
        self._awaits_keyframe = False
        self._recoder: Recoder | None = None
        self._untold: dict[ev.DropReason, int] = {"slow_client": 0, "late": 0}
        self._told_s = float("-inf")

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the next frame may go, 0 for now; None when there is none, or its picture
        is still being made, or there is no credit."""
        ready = self._conversation.ready
        if not ready or not ready[0].made:
            return None
        # Idle frames in front of speech must not hold it back.
        idle = ready[0].response == 0 and ready[-1].response == 0
        return self._pacer.delay_s(self._conversation.next_index, now_s, idle=idle)

    def shown_pts_us(self, now_s: float) -> int | None:
        """The frame that should be on screen, maybe one not sent yet; None when nothing was sent
        since the last cancel."""
        return self._pacer.shown_pts_us(now_s)

    def late_s(self, now_s: float) -> float:
        """How long the client has been waiting for the next frame."""
        return self._pacer.late_s(self._conversation.next_index, now_s)

    def take(self, now_s: float) -> Stamped:
        """The next frame, stamped; its header has no video_len when the picture is left out.

        Raises IndexError when no frame is ready.
        """
        self._conversation.ready[0] = self._conversation.ready[0].settled()
        self._recode()
        index = self._conversation.next_index
        credit = self._pacer.credit(index, now_s)
        with_video = self._with_video(credit)
        self._pacer.sent(index, now_s, credit)
        return self._conversation.stamp(
            now_s,
            playback_end_s=self._pacer.playback_end_s(index + 1, now_s),
            with_video=with_video,
        )

    def _with_video(self, credit: Credit) -> bool:
        frame = self._conversation.ready[0]
        if frame.late:
            self._count("late")
        if not frame.video:
            return True
        if credit is Credit.FULL and (frame.keyframe or not self._awaits_keyframe):
            self._awaits_keyframe = False
            return True
        if not self._awaits_keyframe:
            self._awaits_keyframe = True
            self._conversation.request_keyframe()
        self._count("slow_client")
        return False

    def _count(self, reason: ev.DropReason) -> None:
        self.dropped += 1
        self._untold[reason] += 1

    def dropped_events(self, now_s: float) -> list[ev.ServerEvent]:
        """What to tell about pictures left out since it was last told, once a second."""
        if not any(self._untold.values()) or now_s - self._told_s < DROPPED_EVERY_S:
            return []
        self._told_s = now_s
        told = [(reason, count) for reason, count in self._untold.items() if count]
        self._untold = dict.fromkeys(self._untold, 0)
        return [ev.OutputDropped(frames=count, reason=reason) for reason, count in told]

    def _recode(self) -> None:
        """Until a keyframe comes, a client that came back gets pictures made for it."""
        if self._recoder is None:
            return
        frame = self._conversation.ready[0]
        if frame.keyframe:
            self._recoder.close()
            self._recoder = None
            return
        video, keyframe = self._recoder.recode(frame.video)
        self._conversation.ready[0] = replace(frame, video=video, keyframe=keyframe)

    def restart(self, first_index: int, now_s: float, recoder: Recoder | None) -> None:
        """The client begins again, with frame `first_index`, after a lost connection.

        recoder: has seen all that was sent, for pictures that are predicted from it.
        """
        self._awaits_keyframe = False
        if self._recoder is not None:
            self._recoder.close()
        self._recoder = recoder
        self._pacer.restart(first_index * FRAME_US, now_s)
        if first_index < self._conversation.next_index:
            self._pacer.sent(first_index, now_s)
        end_s = self._pacer.playback_end_s(self._conversation.next_index, now_s)
        self._conversation.reschedule(end_s)
