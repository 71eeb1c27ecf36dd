"""Whether a stream's frames are made in time, and what compressing their pictures takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from visavis.server.order import Order
from visavis.server.pacing import FRAME_S

T = TypeVar("T")
# But the face should not stand still: every so many frames one is shown, however late.
LATE_SHOWN_EVERY = 4


class FrameClock:
    """Follows one stream's frames in their order; `num_late` were left out just before."""

    def __init__(self) -> None:
        self.num_late = 0
        self._order: Order | None = None
        self._play_s = 0.0

    def is_late(self, order: Order, now_s: float, *, late_s: float) -> bool:
        """Whether an order's frames are made so much more slowly than they play, by more than
        `late_s`, that the sound of the next one had better go without its picture."""
        if order is not self._order:
            self._order, self._play_s = order, max(order.play_by_s, now_s)
        behind_s = now_s - self._play_s
        self._play_s += FRAME_S
        return behind_s > late_s and (self.num_late + 1) % LATE_SHOWN_EVERY != 0


@dataclass(slots=True)
class Spent:
    """Seconds: compressing on the engine thread and beside it, and the engine waiting for room."""

    here_s: float = 0.0
    beside_s: float = 0.0
    waited_s: float = 0.0


class EncodingTime:
    """Adds up what one stream's pictures take, on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = Spent()

    def here(self, work: Callable[[], T]) -> T:
        """Do `work` on the engine thread."""
        started = time.monotonic()
        try:
            return work()
        finally:
            with self._lock:
                self._spent.here_s += time.monotonic() - started

    def waiting(self, work: Callable[[], T]) -> T:
        """Do `work` that is nothing but waiting on the engine thread."""
        started = time.monotonic()
        try:
            return work()
        finally:
            with self._lock:
                self._spent.waited_s += time.monotonic() - started

    def beside(self, work: Callable[[], T]) -> T:
        """Do `work` on another thread: what counts is its CPU, for others run beside it."""
        started = time.thread_time()
        try:
            return work()
        finally:
            with self._lock:
                self._spent.beside_s += time.thread_time() - started

    def take(self) -> Spent:
        """What was spent since this was asked last."""
        with self._lock:
            spent, self._spent = self._spent, Spent()
        return spent
