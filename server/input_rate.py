"""How fast a client may send audio. No I/O, no clock."""

from __future__ import annotations

from visavis.server.errors import ErrorCode, ProtocolError

# A message costs at least so much, however little audio it holds: parsing it is work.
MIN_COST_S = 0.0025


class InputMeter:
    """A leaky bucket of audio seconds.

    rate: seconds of audio a second. burst_s: accepted at once, at the beginning and after a pause.
    """

    def __init__(self, *, rate: float, burst_s: float) -> None:
        self._rate = rate
        self._burst_s = burst_s
        self._level_s = 0.0
        self._now_s: float | None = None

    def take(self, audio_s: float, now_s: float) -> None:
        """Count a message. Raises ProtocolError `input_rate_exceeded`; then it is not counted."""
        if self._now_s is not None:
            self._level_s = max(0.0, self._level_s - (now_s - self._now_s) * self._rate)
        self._now_s = now_s
        cost_s = max(audio_s, MIN_COST_S)
        if self._level_s + cost_s > self._burst_s:
            wait_s = (self._level_s + cost_s - self._burst_s) / self._rate
            raise ProtocolError(
                ErrorCode.INPUT_RATE_EXCEEDED,
                f"audio came faster than {self._rate:g} times real time after a first "
                f"{self._burst_s:g} s; the chunk was refused, send it again later",
                retry_after_s=round(wait_s, 3),
            )
        self._level_s += cost_s
