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
