"""When the next frame may be sent: real time, a bounded lead, the client's credit. No I/O."""

from __future__ import annotations

from visavis.server.conversation import FRAME_US

FRAME_S = FRAME_US / 1e6


class Pacer:
    """Maps the media timeline to the monotonic clock.

    speech_lead_s, idle_lead_s: how far ahead of real time frames may be sent.
    max_inflight_us: the most media sent and not acknowledged, once the client acknowledges.
    """

    def __init__(self, *, speech_lead_s: float, idle_lead_s: float, max_inflight_us: int) -> None:
        self.speech_lead_s = speech_lead_s
        self.idle_lead_s = idle_lead_s
        self.max_inflight_us = max_inflight_us
        self._start_s: float | None = None
        self._credit_us: int | None = None
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

    def delay_s(self, index: int, now_s: float, *, idle: bool) -> float | None:
        """Seconds until frame `index` may be sent, 0 for now, None without credit."""
        if (
            self._credit_us is not None
            and index * FRAME_US - self._credit_us > self.max_inflight_us
        ):
            if self._blocked_since_s is None:
                self._blocked_since_s = now_s
            return None
        self._blocked_since_s = None
        lead_s = self.idle_lead_s if idle else self.speech_lead_s
        return max(0.0, self.playback_end_s(index, now_s) - lead_s - now_s)

    def blocked_s(self, now_s: float) -> float:
        """How long the client has given no credit."""
        return 0.0 if self._blocked_since_s is None else now_s - self._blocked_since_s

    def sent(self, index: int, now_s: float) -> None:
        """Frame `index` goes out now. A late frame moves the clock: the client waited for it."""
        if self._start_s is None or now_s > self._start_s + index * FRAME_S:
            self._start_s = now_s - index * FRAME_S

    def acknowledge(self, pts_us: int) -> None:
        """The client has played up to `pts_us`."""
        self._credit_us = max(pts_us, self._credit_us or 0)

    def restart(self, next_pts_us: int) -> None:
        """All media before `next_pts_us` was discarded: play from there as soon as it is sent."""
        self._start_s = None
        self._blocked_since_s = None
        if self._credit_us is not None:
            self._credit_us = next_pts_us
