"""Writing what is made beside making more of it, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")
DEPTH = 32


class BackgroundWriter(Generic[T]):
    """Calls `write` for one item after the other, on a thread of its own.

    At most `depth` items wait; `put` then waits, too. An error of `write` is raised by the next
    `put` or at the end, and what was put after it is dropped, as all that waits is when the `with`
    block itself fails.
    """

    def __init__(self, write: Callable[[T], None], *, depth: int = DEPTH) -> None:
        self._write = write
        self._waiting: queue.Queue[T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def put(self, item: T) -> None:
        """Write the item after all others; raises what an earlier one's `write` raised."""
        self._check()
        self._waiting.put(item)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._dropping = error is not None
        self._waiting.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._dropping or self._error is not None:
                continue
            try:
                self._write(item)
            except BaseException as error:  # told to the one who puts, whatever it is
                self._error = error
