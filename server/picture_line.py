"""One stream's pictures, compressed beside the engine thread, one after the other.

The engine goes on with the next frame or chunk meanwhile. At most `MAX_WAITING` pictures wait: who
brings more waits himself.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from visavis.server.timeline import Picture

# A longest chunk, so that the next one is begun while the last pictures of this one are made.
MAX_WAITING = 32
MAX_THREADS = 4


def picture_threads() -> ThreadPoolExecutor:
    """Threads for all streams of a process; compressing leaves Python's lock to others."""
    count = max(1, min(MAX_THREADS, (os.cpu_count() or 1) // 2))
    return ThreadPoolExecutor(count, thread_name_prefix="pictures")


class PictureLine:
    """Work in the order in which it came; called by one thread, the engine's.

    threads: shared with other lines; None: the caller makes its pictures itself.
    """

    def __init__(self, threads: Executor | None, *, max_waiting: int = MAX_WAITING) -> None:
        self._threads = threads
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Callable[[], Picture], Future[Picture]]] = deque()
        self._running = False
        self._error: BaseException | None = None

    @property
    def beside(self) -> bool:
        """Whether there are threads; `add` needs them."""
        return self._threads is not None

    @property
    def idle(self) -> bool:
        """Whether all that was added is done."""
        with self._changed:
            return not self._running

    def check(self) -> None:
        """Raises what a picture that was added raised."""
        if self._error is not None:
            raise self._error

    def add(self, number: int, work: Callable[[], Picture]) -> Future[Picture]:
        """Let `work` be done after all before it; `number` grows. Waits while the line is full.

        Raises what an earlier piece of work raised: nothing can be predicted from its picture.
        """
        made: Future[Picture] = Future()
        assert self._threads is not None
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._max_waiting or self._error)
            self.check()
            self._waiting.append((number, work, made))
            if self._running:
                return made
            self._running = True
        try:
            self._threads.submit(self._work)
        except RuntimeError:  # the server stops
            with self._changed:
                self._running = False
            self.drop(-1)
            raise
        return made

    def drop(self, last: int) -> None:
        """What was added after number `last` is not wanted any more, if it was not begun."""
        with self._changed:
            while self._waiting and self._waiting[-1][0] > last:
                self._waiting.pop()[2].cancel()
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when all that was added is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def close(self) -> None:
        """Drop what waits; return when nothing runs."""
        self.drop(-1)
        self.wait()

    def _work(self) -> None:
        """On one of the threads, until nothing waits."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._running = False
                    self._changed.notify_all()
                    return
                _, work, made = self._waiting.popleft()
                self._changed.notify_all()
            try:
                picture = work()
            except BaseException as error:  # told to whoever brings the next one
                with self._changed:
                    self._error = error
                    for _, _, later in self._waiting:
                        later.cancel()
                    self._waiting.clear()
                made.set_exception(error)
            else:
                made.set_result(picture)
