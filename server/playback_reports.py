"""What a client tells of its playback: credit for more media, and how well it plays. No I/O."""

from __future__ import annotations

import time

from visavis.server import events as ev
from visavis.server.conversation import Conversation
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer


class PlaybackReports:
    """Takes in every playback.update of one session."""

    def __init__(self, conversation: Conversation, pacer: Pacer, metrics: Metrics) -> None:
        self._conversation = conversation
        self._pacer = pacer
        self._metrics = metrics
        self._underruns = 0

    def take(self, pts_us: int, update: ev.PlaybackUpdate) -> None:
        """The client played up to `pts_us`."""
        self._pacer.acknowledge(pts_us, time.monotonic())
        if update.skew_ms is not None:
            self._metrics.client_skew.observe(abs(update.skew_ms) / 1000)
        self._count_underruns(update.underruns)

    def _count_underruns(self, told: int) -> None:
        """What is new in the client's sum, which begins anew with a page that was loaded anew."""
        # No more media can have come too late than was sent.
        total = min(max(told, 0), self._conversation.next_index)
        self._metrics.client_underruns.inc(max(0, total - self._underruns))
        self._underruns = total
