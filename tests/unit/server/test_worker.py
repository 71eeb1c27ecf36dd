"""The engine thread: most urgent first, failures private, the queue bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from visavis.server.worker import MAX_QUEUED, EngineWorker, WorkerBusyError


@pytest.fixture
def worker() -> Iterator[EngineWorker]:
    worker = EngineWorker()
    worker.start()
    yield worker
    worker.stop()


@pytest.fixture
def gate(worker: EngineWorker) -> Iterator[threading.Event]:
    """Holds the thread until set."""
    opened = threading.Event()
    worker.submit(opened.wait, deadline_s=-1.0)
    yield opened
    opened.set()


def test_everything_runs_on_one_other_thread(worker: EngineWorker) -> None:
    idents = {worker.submit(threading.get_ident, deadline_s=0.0).result(5) for _ in range(5)}
    assert len(idents) == 1
    assert threading.get_ident() not in idents


def test_the_nearest_deadline_runs_first(worker: EngineWorker, gate: threading.Event) -> None:
    order: list[str] = []
    deadlines = {"late": 3.0, "soon": 1.0, "soon too": 1.0, "now": 0.0}
    futures = [
        worker.submit(lambda name=name: order.append(name), deadline_s=deadline_s)
        for name, deadline_s in deadlines.items()
    ]
    gate.set()
    for future in futures:
        future.result(5)
    assert order == ["now", "soon", "soon too", "late"]


async def test_a_failure_is_told_to_its_own_caller_only(worker: EngineWorker) -> None:
    def fail() -> None:
        raise ZeroDivisionError("mine")

    results = await asyncio.gather(
        worker.run(fail, deadline_s=0.0),
        worker.run(lambda: 7, deadline_s=0.0),
        return_exceptions=True,
    )
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1] == 7


def test_the_queue_is_bounded(worker: EngineWorker, gate: threading.Event) -> None:
    def flood() -> None:
        for _ in range(MAX_QUEUED + 2):
            worker.submit(lambda: None, deadline_s=0.0)

    with pytest.raises(WorkerBusyError, match=str(MAX_QUEUED)):
        flood()


def test_stopping_cancels_what_waits(worker: EngineWorker, gate: threading.Event) -> None:
    waiting = worker.submit(lambda: None, deadline_s=0.0)
    threading.Timer(0.05, gate.set).start()
    worker.stop()
    with pytest.raises(CancelledError):
        waiting.result(5)
    with pytest.raises(WorkerBusyError):
        worker.submit(lambda: None, deadline_s=0.0)


class CountedSteps:
    """So many steps of some urgency, each noted; a real scheduler seen from the thread."""

    def __init__(self, count: int, deadline_s: float, order: list[str]) -> None:
        self.left, self.urgency_s, self.order = count, deadline_s, order
        self.closed = threading.Event()
        self.done = threading.Event()

    def wait_s(self) -> float | None:
        return 0.0 if self.left else None

    def deadline_s(self) -> float:
        return self.urgency_s if self.left else float("inf")

    def tick(self) -> bool:
        self.left -= 1
        self.order.append("step")
        if not self.left:
            self.done.set()
        return True

    def close(self) -> None:
        self.closed.set()


def test_steps_run_between_pieces_of_work_by_urgency(
    worker: EngineWorker, gate: threading.Event
) -> None:
    order: list[str] = []
    steps = CountedSteps(3, 5.0, order)
    worker.steps = steps
    futures = [
        worker.submit(lambda: order.append("now"), deadline_s=1.0),
        worker.submit(lambda: order.append("later"), deadline_s=9.0),
    ]
    gate.set()
    for future in futures:
        future.result(5)
    assert order == ["now", "step", "step", "step", "later"]


def test_a_failing_step_does_not_end_the_thread(worker: EngineWorker) -> None:
    class Failing(CountedSteps):
        def tick(self) -> bool:
            super().tick()
            raise RuntimeError("broken")

    steps = Failing(2, 0.0, [])
    worker.steps = steps
    worker.nudge()
    assert steps.done.wait(5)
    assert worker.submit(lambda: 3, deadline_s=0.0).result(5) == 3


def test_stopping_abandons_the_steps(worker: EngineWorker) -> None:
    steps = CountedSteps(0, 0.0, [])
    worker.steps = steps
    worker.stop()
    assert steps.closed.is_set()
