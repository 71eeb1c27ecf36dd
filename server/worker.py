"""The one engine thread: everything that touches the engine runs here, most urgent first.

The event loop submits short pieces of work (an order for a chunk, an avatar) and awaits them; it
never computes itself. Between them the thread moves the chunks under way on, one denoising step or
one frame at a time. An exception belongs to the piece that raised it and to nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")
MAX_QUEUED = 256


class WorkerBusyError(RuntimeError):
    """The queue is full: more pieces of work wait than sessions should be able to submit."""


class WorkerStoppedError(WorkerBusyError):
    """The thread ends with its server: nothing is taken any more."""


class Steps(Protocol):
    """Work that comes in steps: `visavis.engine.batching.ChunkScheduler`, as far as seen here."""

    def wait_s(self) -> float | None:
        """Seconds until there is a step to take; None while there is none to come."""
        ...

    def deadline_s(self) -> float:
        """By when the most urgent step is wanted, infinity when there is none now."""
        ...

    def tick(self) -> bool:
        """Take one step."""
        ...

    def close(self) -> None:
        """Abandon what is under way."""
        ...


@dataclass(order=True)
class _Work:
    deadline_s: float
    order: int
    run: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)


class EngineWorker:
    """A thread with a bounded queue, ordered by deadline and then by arrival.

    `steps`, if set from work on the thread itself, is moved on whenever it is more urgent.
    """

    def __init__(self, name: str = "engine") -> None:
        self._condition = threading.Condition()
        self._queue: list[_Work] = []
        self._counter = itertools.count()
        self._stopping = False
        self.steps: Steps | None = None
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

        Raises WorkerBusyError when the queue is full, WorkerStoppedError when the worker stops.
        """
        future: Future[T] = Future()
        with self._condition:
            if self._stopping:
                raise WorkerStoppedError("the engine's thread has stopped; nothing is taken")
            if len(self._queue) >= MAX_QUEUED:
                raise WorkerBusyError(
                    f"{len(self._queue)} pieces of work are queued, {MAX_QUEUED} at most; "
                    "try again later"
                )
            heapq.heappush(self._queue, _Work(deadline_s, next(self._counter), run, future))
            self._condition.notify()
        return future

    def nudge(self) -> None:
        """A step may be due, or no longer wanted, that was neither when the thread last looked."""
        with self._condition:
            self._condition.notify()

    async def run(self, run: Callable[[], T], *, deadline_s: float) -> T:
        """Await `run` on the engine thread, in the caller's context: what it logs names the
        session."""
        within = partial(contextvars.copy_context().run, run)
        return await asyncio.wrap_future(self.submit(within, deadline_s=deadline_s))

    def _loop(self) -> None:
        while True:
            work = self._next()
            if self._stopping:
                break
            if work is None:
                self._step()
            elif work.future.set_running_or_notify_cancel():
                try:
                    result = work.run()
                except BaseException as error:  # told to the one who waits, whatever it is
                    work.future.set_exception(error)
                else:
                    work.future.set_result(result)
            del work
        if self.steps is not None:
            self.steps.close()

    def _next(self) -> _Work | None:
        """Wait for something to do: a piece of work, or None for a step (or the end)."""
        with self._condition:
            while not self._queue and not self._stopping:
                wait_s = self.steps.wait_s() if self.steps is not None else None
                if wait_s == 0:
                    return None
                self._condition.wait(wait_s)
            if self._stopping:
                return None
            steps_first = (
                self.steps is not None and self.steps.deadline_s() < self._queue[0].deadline_s
            )
            return None if steps_first else heapq.heappop(self._queue)

    def _step(self) -> None:
        assert self.steps is not None
        try:
            self.steps.tick()
        except Exception as error:  # the thread serves every session: it must not end
            log.error("a step failed", exc_info=error)
