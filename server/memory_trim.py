"""Gives freed memory back to the system after sessions, where the C library keeps it; what stays is
no business of the garbage collector.

Sessions allocate in several threads, pieces of all sizes; what they free lies scattered between
what lives on, and glibc returns none of it by itself: a server whose visitors come and go would
seem to grow by some MiB each.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable

# Returning memory holds up whoever allocates for some milliseconds.
EVERY_S = 60.0


def release_freed() -> bool:
    """Return freed memory to the system; false where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


def settle() -> None:
    """What lives now, lives as long as the process: the garbage collector looks at the rest only.

    A full collection would hold every thread up for as long as it takes to look at a loaded model's
    million objects, and for that reason be due only after dozens of sessions.
    """
    gc.collect()
    gc.freeze()
    # It counts what it found last time: with the model in that count, the next one would be late.
    gc.collect()


class MemoryTrimmer:
    """Calls `release` in a thread when asked, at once and then every `every_s` seconds at most."""

    def __init__(
        self, *, release: Callable[[], object] = release_freed, every_s: float = EVERY_S
    ) -> None:
        self._release = release
        self._every_s = every_s
        self._last_s: float | None = None
        self._planned: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Something large was freed. Needs a running event loop; never waits."""
        if self._planned is not None:
            return
        loop = asyncio.get_running_loop()
        wait_s = 0.0 if self._last_s is None else self._last_s + self._every_s - loop.time()
        self._planned = loop.call_later(max(0.0, wait_s), self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._planned, self._last_s = None, loop.time()
        loop.run_in_executor(None, self._release)
