"""Bounds a session by what its caller's quota has left. No I/O, no clock."""

from __future__ import annotations

from visavis.server.caller import Lease
from visavis.server.deadlines import Deadlines

ASKED_EVERY_S = 1.0


class LeaseWatch:
    """Asks a lease now and then: what a key has left also depends on its other sessions."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._asked_s = float("-inf")

    def ask(self, now_s: float, deadlines: Deadlines) -> None:
        """Set the end of the session by what is left now."""
        if now_s - self._asked_s < ASKED_EVERY_S:
            return
        self._asked_s = now_s
        left_s = self._lease.left_s()
        if left_s is not None:
            deadlines.bound(now_s + left_s, self._lease.used_up())
