"""What a server does when its engine's group is lost, with a group that is lost on command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from visavis.engine.parallel.loss import GroupLostError, Loss
from visavis.server.group_recovery import GroupRecovery
from visavis.server.metrics import Metrics
from visavis.server.worker import EngineWorker

KILLED = Loss("died", 1, "process 7 ended by signal 9")
WAIT_S = 60.0


@dataclass
class Launch:
    world: int = 2


@dataclass
class FakeGroup:
    """`WorkerGroup` as far as the recovery sees it."""

    restartable: bool = True
    on_loss: Callable[[Loss], None] = lambda loss: None
    loss: Loss | None = None
    alive: int = 2
    launch: Launch = field(default_factory=Launch)
    pids: dict[int, int] = field(default_factory=dict)
    cancelled: bool = False

    def lose(self, loss: Loss = KILLED) -> None:
        """From another thread, as the lookout does."""
        self.loss = loss
        thread = threading.Thread(target=self.on_loss, args=(loss,))
        thread.start()
        thread.join()

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeEngine:
    """Restarts fail as often as told."""

    group: FakeGroup | None
    failures: int = 0
    restarts: int = 0
    error: Exception | None = None

    def restart_group(self) -> None:
        self.restarts += 1
        if self.error is not None:
            raise self.error
        if self.restarts <= self.failures:
            raise GroupLostError(KILLED)
        assert self.group is not None
        self.group.loss = None


class FakeHost:
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.worker = EngineWorker()
        self.told: list[str] = []
        self.over = asyncio.Event()

    def interrupted(self, why: str) -> None:
        self.told.append(f"interrupted: {why}")

    async def tell(self, kept: bool) -> None:
        self.told.append(f"sessions told, kept: {kept}")

    def computes_again(self) -> None:
        self.told.append("computes again")
        self.over.set()

    def gave_up(self, why: str) -> None:
        self.told.append(f"gave up: {why}")
        self.over.set()

    async def end(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.over.wait()
        self.over.clear()


@asynccontextmanager
async def watched(
    engine: FakeEngine, **settings: Any
) -> AsyncIterator[tuple[FakeHost, GroupRecovery, Metrics]]:
    host, metrics = FakeHost(), Metrics()
    host.worker.start()
    options = {"max_restarts": 3, "first_pause_s": 0.001} | settings
    recovery = GroupRecovery(host, metrics, host.tell, **options)
    recovery.watch(cast(Any, engine))
    try:
        yield host, recovery, metrics
    finally:
        recovery.stop()
        await asyncio.to_thread(host.worker.stop)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"visavis_{name}", labels)


async def test_readiness_goes_first_then_sessions_are_told_then_the_group_restarts() -> None:
    group = FakeGroup()
    async with watched(FakeEngine(group)) as (host, recovery, metrics):
        group.lose()
        await host.end()
        assert host.told == [
            "interrupted: rank 1 died: process 7 ended by signal 9",
            "sessions told, kept: True",
            "computes again",
        ]
        assert recovery.retry_after_s < WAIT_S
        assert value(metrics, "group_losses_total", kind="died") == 1
        assert value(metrics, "group_restarts_total") == 1
        assert value(metrics, "group_ranks") == value(metrics, "group_ranks_alive") == 2


async def test_a_second_loss_is_recovered_from_as_well() -> None:
    engine = FakeEngine(FakeGroup())
    assert engine.group is not None
    async with watched(engine) as (host, _, metrics):
        for _ in range(2):
            engine.group.lose()
            await host.end()
        assert engine.restarts == 2
        assert value(metrics, "group_restarts_total") == 2


async def test_a_restart_that_fails_is_tried_again_and_not_for_ever() -> None:
    engine = FakeEngine(FakeGroup(), failures=2)
    assert engine.group is not None
    async with watched(engine) as (host, _, _metrics):
        engine.group.lose()
        await host.end()
        assert engine.restarts == 3
        assert host.told[-1] == "computes again"
        engine.group.lose()
        await host.end()
        assert engine.restarts == 3
        assert "restarted 3 times within" in host.told[-1]


async def test_a_group_of_torchrun_is_given_up_for_torchrun_to_restart() -> None:
    engine = FakeEngine(FakeGroup(restartable=False))
    assert engine.group is not None
    async with watched(engine) as (host, _, _metrics):
        engine.group.lose()
        await host.end()
        assert engine.restarts == 0
        assert host.told[1] == "sessions told, kept: False"
        assert "all processes are to be started anew" in host.told[-1]


async def test_an_engine_thread_that_hangs_is_given_up_within_its_time() -> None:
    group, free = FakeGroup(), threading.Event()
    async with watched(FakeEngine(group), free_within_s=0.05) as (host, _, _metrics):
        host.worker.submit(lambda: free.wait(WAIT_S), deadline_s=0.0)
        group.lose()
        await host.end()
        free.set()
        assert host.told[1] == "sessions told, kept: False"
        assert "did not come back" in host.told[-1]


async def test_an_error_of_another_kind_is_not_tried_again() -> None:
    engine = FakeEngine(FakeGroup(), error=ValueError("weights are gone"))
    assert engine.group is not None
    async with watched(engine) as (host, _, _metrics):
        engine.group.lose()
        await host.end()
        assert engine.restarts == 1
        assert "weights are gone" in host.told[-1]


async def test_a_loss_before_the_watch_began_counts() -> None:
    async with watched(FakeEngine(FakeGroup(loss=KILLED))) as (host, _, _metrics):
        await host.end()
        assert host.told[-1] == "computes again"


async def test_nothing_is_restarted_while_the_server_stops() -> None:
    engine = FakeEngine(FakeGroup())
    assert engine.group is not None
    async with watched(engine) as (host, recovery, _metrics):
        recovery.stop()
        engine.group.lose()
        await asyncio.sleep(0)
        await host.worker.run(lambda: None, deadline_s=0.0)
        assert host.told == []
        assert engine.restarts == 0


async def test_one_process_alone_needs_no_watch() -> None:
    async with watched(FakeEngine(None)) as (host, _, metrics):
        assert host.told == []
        assert value(metrics, "group_ranks") == 0
