"""A session's producer at work: its task, what becomes of its failure, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.interruption import refused_work
from visavis.server.order import StreamState
from visavis.server.pacing import Pacer
from visavis.server.producer import Producer
from visavis.server.stream import EngineStream
from visavis.server.worker import WorkerBusyError

if TYPE_CHECKING:
    from visavis.server.live_session import LiveSession

log = structlog.get_logger(__name__)


def begin_production(live: LiveSession, stream: EngineStream) -> Production:
    """Let a session that has its settings and its conversation speak: its media goes to
    `live.out`."""
    config, setup, conversation = live.config, live.setup, live.conversation
    assert setup is not None
    assert conversation is not None
    assert live.effective is not None
    pacer = Pacer(
        speech_lead_s=config.speech_lead_ms / 1000,
        idle_lead_s=config.idle_lead_ms / 1000,
        max_inflight_us=config.max_inflight_ms * 1000,
    )
    producer = Producer(
        conversation=conversation,
        pacer=pacer,
        stream=stream,
        host=live.host,
        config=config,
        metrics=live.metrics,
        output=live.effective.output,
        idle_policy=setup.idle,
        on_change=live.out.wake,
        on_events=lambda events: live.out.post(*events),
    )
    fmp4 = Fmp4Writer(fps=setup.fps) if setup.output.video == "fmp4" else None
    live.out.attach(conversation, pacer, producer, fmp4)
    return Production(producer, live.id, live.fail)


class Production:
    """Runs a producer until it fails, is stopped or ended; `on_failure` is told what a client may
    know of a failure."""

    def __init__(
        self, producer: Producer, session_id: str, on_failure: Callable[[ProtocolError], None]
    ) -> None:
        self.producer = producer
        # It must not know this object: a task keeps the frames that its cancellation went through.
        self._task = asyncio.create_task(_run(producer, session_id, on_failure))

    async def stop(self, *, max_bytes: int) -> StreamState:
        """Leave the chunk under way, and copy the stream as it is then.

        Raises ValueError for a copy larger than `max_bytes`, or WorkerBusyError.
        """
        self.producer.stop()
        await asyncio.wait([self._task])
        return await self.producer.save(max_bytes=max_bytes)

    async def end(self) -> None:
        """Stop in the middle of whatever it does, and free the stream."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        # A stopped engine thread has nothing left to free.
        with contextlib.suppress(WorkerBusyError, asyncio.CancelledError):
            await self.producer.close()


async def _run(
    producer: Producer, session_id: str, on_failure: Callable[[ProtocolError], None]
) -> None:
    try:
        await producer.run()
    except ProtocolError as error:
        on_failure(error)
    except WorkerBusyError as error:
        on_failure(refused_work(error))
    except Exception as error:
        log.error("session failed", session_id=session_id, exc_info=error)
        on_failure(
            ProtocolError(
                ErrorCode.ENGINE_FAILED,
                "the session failed inside the server; open a new one",
                retry_after_s=1.0,
            )
        )
