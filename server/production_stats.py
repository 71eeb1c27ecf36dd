"""How fast one session's frames are made, smoothed for session.stats."""

from __future__ import annotations

from visavis.server.conversation import FRAME_US
from visavis.server.order import Outcome
from visavis.server.pacing import FRAME_S


class ProductionStats:
    """Running figures for session.stats, smoothed over about ten chunks."""

    def __init__(self) -> None:
        self.realtime_factor: float | None = None
        self.frames_per_s = 0.0
        self.encode_ms = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in a turn that made frames."""
        factor = outcome.busy_s / (outcome.frames * FRAME_S)
        encode_ms = outcome.encode_s * 1000 / outcome.frames
        if self.realtime_factor is None:
            self.realtime_factor, self.encode_ms = factor, encode_ms
        else:
            self.realtime_factor += 0.1 * (factor - self.realtime_factor)
            self.encode_ms += 0.1 * (encode_ms - self.encode_ms)
        self.frames_per_s = 1e6 / FRAME_US / max(self.realtime_factor, 1e-6)
