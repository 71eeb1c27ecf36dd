"""What a server does when processes of its engine are lost: tell, make the group anew, or give up.

The server's own process, its sessions and the leader's weights stay. See docs/parallelism.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from visavis.engine.parallel.loss import GroupLostError, Loss
from visavis.server.metrics import Metrics
from visavis.server.worker import EngineWorker, WorkerBusyError

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import AvatarEngine
    from visavis.engine.parallel.worker_group import WorkerGroup

log = structlog.get_logger(__name__)

# An engine thread that has not left a collective by then, all others killed, never will.
FREE_WITHIN_S = 60.0
# Restarts count against the limit for so long: what fails once a day is no broken machine.
COUNTED_S = 600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
# What a restart takes before one was seen.
ASSUMED_S = 10.0
ALIVE_EVERY_S = 1.0


class Interrupted(Protocol):
    """What the recovery needs of the model's host."""

    worker: EngineWorker

    def interrupted(self, why: str) -> None:
        """The engine cannot compute for a while."""
        ...

    def computes_again(self) -> None:
        """It can."""
        ...

    def gave_up(self, why: str) -> None:
        """It never will."""
        ...


class GroupRecovery:
    """Watches one engine's group; everything but the loss itself happens on the event loop.

    `tell_sessions` is called with whether sessions can be kept, and returns when they were told and
    those that can have left for other replicas.
    """

    def __init__(
        self,
        host: Interrupted,
        metrics: Metrics,
        tell_sessions: Callable[[bool], Awaitable[None]],
        *,
        max_restarts: int,
        free_within_s: float = FREE_WITHIN_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.retry_after_s = ASSUMED_S
        self._host, self._metrics, self._tell = host, metrics, tell_sessions
        self._max_restarts = max_restarts
        self._free_within_s, self._first_pause_s = free_within_s, first_pause_s
        self._engine: AvatarEngine | None = None
        self._restarts_s: deque[float] = deque()
        self._task: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._stopped = False

    def watch(self, engine: AvatarEngine) -> None:
        """Begin, with an engine that is ready; one process alone needs no watch."""
        self._engine = engine
        group = engine.group
        if group is None:
            return
        loop = asyncio.get_running_loop()
        group.on_loss = lambda loss: loop.call_soon_threadsafe(self._lost, loss)
        self._metrics.group_ranks_expected.set(group.launch.world)
        log.info("group ready", ranks=group.launch.world, pids=group.pids)
        self._counting = asyncio.create_task(self._count(group))
        if group.loss is not None:
            self._lost(group.loss)

    def stop(self) -> None:
        """The server stops: whoever waits for followers gives up, and nothing is restarted."""
        self._stopped = True
        for task in (self._task, self._counting):
            if task is not None:
                task.cancel()
        if self._engine is not None and self._engine.group is not None and self._task is not None:
            self._engine.group.cancel()

    async def _count(self, group: WorkerGroup) -> None:
        while True:
            self._metrics.group_ranks_alive.set(group.alive)
            await asyncio.sleep(ALIVE_EVERY_S)

    def _lost(self, loss: Loss) -> None:
        self._metrics.group_losses.labels(kind=loss.kind).inc()
        self._metrics.group_ranks_alive.set(1)
        if self._stopped or (self._task is not None and not self._task.done()):
            return  # a restart that fails says so itself
        log.error("group lost", kind=loss.kind, rank=loss.rank, detail=loss.detail)
        self._host.interrupted(str(loss))
        self._task = asyncio.create_task(self._recover(loss))

    async def _recover(self, loss: Loss) -> None:
        assert self._engine is not None
        group = self._engine.group
        assert group is not None
        try:
            # Those that go elsewhere need the engine's thread to say what they are.
            freed = await self._thread_is_free()
            await self._tell(group.restartable and freed)
            if not freed:
                self._host.gave_up(f"{loss}; the engine's thread did not come back")
            elif not group.restartable:
                self._host.gave_up(f"{loss}; all processes are to be started anew")
            else:
                await self._restart(self._engine, group)
        except WorkerBusyError:
            log.info("the server stops, the group is not restarted")
        except Exception as error:
            log.error("the group cannot be restarted", exc_info=error)
            self._host.gave_up(f"{loss}; {type(error).__name__}: {error}")

    async def _thread_is_free(self) -> bool:
        try:
            async with asyncio.timeout(self._free_within_s):
                await self._host.worker.run(_nothing, deadline_s=0.0)
        except TimeoutError:
            return False
        return True

    async def _restart(self, engine: AvatarEngine, group: WorkerGroup) -> None:
        pause_s = self._first_pause_s
        while True:
            now_s = time.monotonic()
            while self._restarts_s and now_s - self._restarts_s[0] > COUNTED_S:
                self._restarts_s.popleft()
            if len(self._restarts_s) >= self._max_restarts:
                self._host.gave_up(
                    f"the group was restarted {self._max_restarts} times within {COUNTED_S:g} s"
                )
                return
            self._restarts_s.append(now_s)
            try:
                await self._host.worker.run(engine.restart_group, deadline_s=0.0)
            except GroupLostError as error:
                log.warning("restart failed", reason=str(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            break
        self.retry_after_s = round(time.monotonic() - now_s, 1)
        self._metrics.group_restarts.inc()
        self._metrics.group_restart_seconds.set(self.retry_after_s)
        self._metrics.group_ranks_alive.set(group.alive)
        log.info("group restarted", seconds=self.retry_after_s, pids=group.pids)
        self._host.computes_again()
        if group.loss is not None:
            # Between the last chunk of the restart and now; `_lost` took it for part of it.
            self._host.interrupted(str(group.loss))
            await self._tell(True)
            await self._restart(engine, group)


def _nothing() -> None:
    return None
