"""The one engine thread: everything that touches the engine runs here, most urgent first.

The event loop submits short pieces of work (one chunk, one avatar) and awaits them; it never
computes itself. An exception belongs to the piece that raised it and to nobody else.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
MAX_QUEUED = 256


class WorkerBusyError(RuntimeError):
    """The queue is full: more pieces of work wait than sessions should be able to submit."""


@dataclass(order=True)
class _Work:
    deadline_s: float
    order: int
    run: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)


class EngineWorker:
    """A thread with a bounded queue, ordered by deadline and then by arrival."""

    def __init__(self, name: str = "engine") -> None:
        self._condition = threading.Condition()
        self._queue: list[_Work] = []
        self._counter = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the piece at work, cancel the rest and end the thread."""
        with self._condition:
            self._stopping = True
            dropped, self._queue = self._queue, []
            self._condition.notify()
        for work in dropped:
            work.future.cancel()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def busy(self) -> bool:
        """Whether the thread still runs, after `stop` gave up waiting for it."""
        return self._thread.is_alive()

    def submit(self, run: Callable[[], T], *, deadline_s: float) -> Future[T]:
        """Queue `run`; deadline_s is on any clock that all callers share.

        Raises WorkerBusyError when the queue is full or the worker stops.
        """
        future: Future[T] = Future()
        with self._condition:
            if self._stopping or len(self._queue) >= MAX_QUEUED:
                raise WorkerBusyError(
                    f"{len(self._queue)} pieces of work are queued, {MAX_QUEUED} at most; "
                    "try again later"
                )
            heapq.heappush(self._queue, _Work(deadline_s, next(self._counter), run, future))
            self._condition.notify()
        return future

    async def run(self, run: Callable[[], T], *, deadline_s: float) -> T:
        """Await `run` on the engine thread."""
        return await asyncio.wrap_future(self.submit(run, deadline_s=deadline_s))

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    return
                work = heapq.heappop(self._queue)
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                result = work.run()
            except BaseException as error:  # told to the one who waits, whatever it is
                work.future.set_exception(error)
            else:
                work.future.set_result(result)
            del work
