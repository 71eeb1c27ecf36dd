"""When the next frame may be sent: real time, a bounded lead, the client's credit. No I/O."""

from __future__ import annotations

from enum import Enum

from visavis.server.protocol import FRAME_US

FRAME_S = FRAME_US / 1e6
# A client without credit whose picture is due for so long gets sound only.
OVERDUE_S = 0.5


class Credit(Enum):
    """What the client's acknowledgements allow for a frame."""

    FULL = "full"
    SOUND_ONLY = "sound only"
    NONE = "none"


class Pacer:
    """Maps the media timeline to the monotonic clock.

    speech_lead_s, idle_lead_s: how far ahead of real time frames may be sent.
    max_inflight_us: the most media sent and not acknowledged, once the client acknowledges. A
    client that has fallen behind gets as much again without pictures, for sound is small and is
    never dropped.
    """

    def __init__(self, *, speech_lead_s: float, idle_lead_s: float, max_inflight_us: int) -> None:
        self.speech_lead_s = speech_lead_s
        self.idle_lead_s = idle_lead_s
        self.max_inflight_us = max_inflight_us
        self._start_s: float | None = None
        self._credit_us: int | None = None
        self._credit_s = 0.0
        self._blocked_since_s: float | None = None

    def playback_end_s(self, next_index: int, now_s: float) -> float:
        """When a client that plays at once runs out of what was sent before frame `next_index`."""
        if self._start_s is None:
            return now_s
        return max(now_s, self._start_s + next_index * FRAME_S)

    def late_s(self, next_index: int, now_s: float) -> float:
        """How long the client has been waiting for frame `next_index`; 0 while it is not due."""
        if self._start_s is None:
            return 0.0
        return max(0.0, now_s - self._start_s - next_index * FRAME_S)

    def shown_pts_us(self, now_s: float) -> int | None:
        """The frame that should be on screen now: the client's word and the time since, else the
        clock alone. None when nothing was sent since the beginning or the last `restart`; it may be
        beyond what was sent."""
        if self._start_s is None:
            return None
        by_clock_us = int((now_s - self._start_s) * 1e6)
        if self._credit_us is None:
            return by_clock_us
        by_client_us = self._credit_us + int((now_s - self._credit_s) * 1e6)
        # A client cannot show what it could not have: late media moves the clock.
        return min(by_client_us, by_clock_us)

    def credit(self, index: int, now_s: float) -> Credit:
        """What may be sent of frame `index`; remembers since when it is less than all."""
        if self._credit_us is None:
            return Credit.FULL
        inflight_us = index * FRAME_US - self._credit_us
        if inflight_us <= self.max_inflight_us:
            self._blocked_since_s = None
            return Credit.FULL
        if self._blocked_since_s is None:
            self._blocked_since_s = now_s
        # Frames sent ahead need no acknowledgement before they are due.
        overdue = self.late_s(index, now_s) >= OVERDUE_S
        if overdue and inflight_us <= 2 * self.max_inflight_us:
            return Credit.SOUND_ONLY
        return Credit.NONE

    def delay_s(self, index: int, now_s: float, *, idle: bool) -> float | None:
        """Seconds until frame `index` may be sent, 0 for now, None without credit."""
        if self.credit(index, now_s) is Credit.NONE:
            return None
        lead_s = self.idle_lead_s if idle else self.speech_lead_s
        return max(0.0, self.playback_end_s(index, now_s) - lead_s - now_s)

    def blocked_s(self, now_s: float) -> float:
        """How long the client has shown nothing new, while it has more than it may."""
        if self._blocked_since_s is None:
            return 0.0
        return now_s - max(self._blocked_since_s, self._credit_s)

    def sent(self, index: int, now_s: float, credit: Credit = Credit.FULL) -> None:
        """Frame `index` goes out now. A late frame moves the clock: the client waited for it.

        Sound on its own does not: it makes up for what the client itself has missed.
        """
        if (
            self._start_s is None
            or credit is Credit.FULL
            and now_s > self._start_s + index * FRAME_S
        ):
            self._start_s = now_s - index * FRAME_S

    def acknowledge(self, pts_us: int, now_s: float) -> None:
        """The client has played up to `pts_us`."""
        if self._credit_us is None or pts_us > self._credit_us:
            self._credit_us, self._credit_s = pts_us, now_s

    def restart(self, next_pts_us: int, now_s: float = 0.0) -> None:
        """Media before `next_pts_us` was discarded, or is to be shown again from there: play as
        soon as it is sent."""
        self._start_s = None
        self._blocked_since_s = None
        if self._credit_us is not None:
            self._credit_us, self._credit_s = next_pts_us, now_s
