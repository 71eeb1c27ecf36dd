"""Who waits for a place, in order, and for about how long. No I/O, no clock."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Sessions whose length is remembered to tell how long one is.
REMEMBERED = 64

OnQueued = Callable[[int, float | None], None]
"""Told the position, 1 for the next, and the estimated seconds, None when nobody can tell."""


@dataclass(eq=False)
class Ticket:
    """One that waits. `call` is made when it is its turn; then it is not in line any more.
    `picture_s` as for `Admission.join`."""

    call: Callable[[], None]
    on_queued: OnQueued
    picture_s: float | None = None
    told: tuple[int, float | None] | None = None


class WaitingLine:
    """First come, first served; at most `limit` tickets."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._tickets: deque[Ticket] = deque()
        self._lengths_s: deque[float] = deque(maxlen=REMEMBERED)

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def is_full(self) -> bool:
        """Whether nobody may join."""
        return len(self._tickets) >= self.limit

    @property
    def next(self) -> Ticket | None:
        """Whose turn comes first."""
        return self._tickets[0] if self._tickets else None

    def join(self, ticket: Ticket) -> None:
        """Wait at the end. The caller has looked at `is_full`."""
        self._tickets.append(ticket)

    def leave(self, ticket: Ticket) -> bool:
        """Give up; False when it was not in line any more."""
        if ticket not in self._tickets:
            return False
        self._tickets.remove(ticket)
        return True

    def call_next(self) -> None:
        """It is the first one's turn."""
        self._tickets.popleft().call()

    def clear(self) -> tuple[Ticket, ...]:
        """Nobody waits any more; returns those who did."""
        tickets = tuple(self._tickets)
        self._tickets.clear()
        return tickets

    def session_ended(self, length_s: float) -> None:
        """A session that held a place lasted so long."""
        self._lengths_s.append(length_s)

    def eta_s(self, position: int, ages_s: Iterable[float], places: int) -> float | None:
        """Estimated wait at `position` while sessions of these ages hold the places.

        A session is taken to last as long as the median of those that ended; one that is older
        already, half as long again as that.
        """
        ages = sorted(ages_s, reverse=True)
        if not self._lengths_s or not ages or not places:
            return None
        usual_s = statistics.median(self._lengths_s)
        left = sorted(usual_s - age if age < usual_s else usual_s / 2 for age in ages)
        rounds, place = divmod(position - 1, len(left))
        return round(left[place] + rounds * usual_s, 1)

    def tell(self, ages_s: Iterable[float], places: int) -> None:
        """Tell each who waits what has changed for it: its position, or its wait by a good part."""
        ages = list(ages_s)
        for position, ticket in enumerate(self._tickets, 1):
            eta_s = self.eta_s(position, ages, places)
            if ticket.told is None or ticket.told[0] != position or differs(ticket.told[1], eta_s):
                ticket.told = position, eta_s
                ticket.on_queued(position, eta_s)


def differs(told_s: float | None, now_s: float | None) -> bool:
    """Whether an estimate changed enough to be told again: by a fifth and 2 s."""
    if told_s is None or now_s is None:
        return told_s is not now_s
    return abs(now_s - told_s) > max(2.0, 0.2 * told_s)
