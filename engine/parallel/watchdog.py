"""How long a shared piece of work may take: from what pieces of its kind took before."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# So many times the slowest of the last pieces is no longer slow, but stuck...
PATIENCE = 10.0
# ...unless it is still short: the machine may have been busy with something else.
SHORTEST_LIMIT_S = 5.0
# Before a kind is known: kernels are compiled and connections made.
FIRST_LIMIT_S = 300.0
KNOWN_AFTER = 3
REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Overdue:
    """A piece of work that is late."""

    name: str
    seconds: float
    limit_s: float


class StepWatch:
    """Measures pieces of work on one thread; another may ask whether the present one is stuck."""

    def __init__(
        self, limit_s: float | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`limit_s`: for every piece; None: `PATIENCE` times the slowest of its kind."""
        self._fixed_s = limit_s
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[Hashable, deque[float]] = {}
        self._now: tuple[str, Hashable, float] | None = None

    @contextmanager
    def piece(self, name: str, *kind: Hashable) -> Iterator[None]:
        """The block is one piece; those of one name and `kind` (shapes) take about the same.

        Pieces within another one count as part of it.
        """
        if self._now is not None:
            yield
            return
        key, started_s = (name, *kind), self._clock()
        with self._lock:
            self._now = (name, key, started_s)
        try:
            yield
            with self._lock:
                taken = self._taken.setdefault(key, deque(maxlen=REMEMBERED))
                taken.append(self._clock() - started_s)
        finally:
            with self._lock:
                self._now = None

    def limit_s(self, name: str, *kind: Hashable) -> float:
        """Seconds that a piece of this kind may take now."""
        with self._lock:
            return self._limit_s((name, *kind))

    def _limit_s(self, key: Hashable) -> float:
        if self._fixed_s is not None:
            return self._fixed_s
        taken = self._taken.get(key, ())
        if len(taken) < KNOWN_AFTER:
            return FIRST_LIMIT_S
        return max(SHORTEST_LIMIT_S, PATIENCE * max(taken))

    def forget(self) -> None:
        """What pieces take is no longer known: everything is new again."""
        with self._lock:
            self._taken.clear()

    def overdue(self) -> Overdue | None:
        """The piece under way, if it takes too long."""
        with self._lock:
            if self._now is None:
                return None
            name, key, started_s = self._now
            seconds, limit_s = self._clock() - started_s, self._limit_s(key)
        return Overdue(name, seconds, limit_s) if seconds > limit_s else None
