"""How fast one session's frames are made, smoothed for session.stats."""

from __future__ import annotations

from visavis.server.conversation import FRAME_US
from visavis.server.order import Outcome
from visavis.server.pacing import FRAME_S

SMOOTHING = 0.1


class ProductionStats:
    """Running figures for session.stats, smoothed over about ten chunks.

    realtime_factor: the model's and the pictures' time over the time that the frames play; of
    speech once there was some, since idle frames that are shown again cost next to nothing. Chunks
    that were cut off say nothing: most of their work is done before their first frame.
    """

    def __init__(self) -> None:
        self.realtime_factor: float | None = None
        self.frames_per_s = 0.0
        self.encode_ms = 0.0
        self._has_spoken = False

    def add(self, outcome: Outcome) -> None:
        """Take in a turn that made frames."""
        if outcome.abandoned:
            return
        factor = outcome.busy_s / (outcome.frames * FRAME_S)
        encode_ms = outcome.encode_s * 1000 / outcome.frames
        if self.realtime_factor is None:
            self.realtime_factor, self.encode_ms = factor, encode_ms
        self.encode_ms += SMOOTHING * (encode_ms - self.encode_ms)
        if outcome.speech and not self._has_spoken:
            self.realtime_factor = factor
        elif outcome.speech or not self._has_spoken:
            self.realtime_factor += SMOOTHING * (factor - self.realtime_factor)
        self._has_spoken |= outcome.speech
        self.frames_per_s = 1e6 / FRAME_US / max(self.realtime_factor, 1e-6)
