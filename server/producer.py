"""Decides, for one session, what the engine does next, and gives it to the engine thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from visavis.engine.plan import CHUNK_LENGTHS, new_frames
from visavis.server import events as ev
from visavis.server.config import ServerConfig
from visavis.server.conversation import FRAME_US, Conversation, MediaFrame
from visavis.server.metrics import Metrics
from visavis.server.pacing import FRAME_S, Pacer
from visavis.server.stream import EngineStream, Order, Outcome
from visavis.server.worker import EngineWorker

# Frames that may wait for their time to be sent: one steady chunk, so that the next is begun
# while the client still has the lead of the one before.
MAX_READY_FRAMES = 28
# An utterance whose audio stops for so long lets the avatar go idle until it goes on.
STARVED_S = 0.4
# A client that has waited so long gets the little that there is.
HURRY_S = 0.2
MARGIN_S = 0.2
SHORT_CHUNK, MIDDLE_CHUNK, LONG_CHUNK = CHUNK_LENGTHS
LONGEST_WAIT_S = 0.25
SHORTEST_WAIT_S = 0.005


class ProductionStats:
    """Running figures for session.stats, smoothed over about ten chunks."""

    def __init__(self) -> None:
        self.realtime_factor: float | None = None
        self.frames_per_s = 0.0
        self.encode_ms = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in a step that made frames."""
        seconds = outcome.generate_s + outcome.encode_s
        factor = seconds / (outcome.frames * FRAME_S)
        encode_ms = outcome.encode_s * 1000 / outcome.frames
        if self.realtime_factor is None:
            self.realtime_factor, self.encode_ms = factor, encode_ms
        else:
            self.realtime_factor += 0.1 * (factor - self.realtime_factor)
            self.encode_ms += 0.1 * (encode_ms - self.encode_ms)
        self.frames_per_s = 1e6 / FRAME_US / max(self.realtime_factor, 1e-6)


class Producer:
    """The generating half of a session.

    on_change is called, on the event loop, after frames arrived or the conversation moved on;
    on_events with events to be sent.
    """

    def __init__(
        self,
        *,
        conversation: Conversation,
        pacer: Pacer,
        stream: EngineStream,
        worker: EngineWorker,
        config: ServerConfig,
        metrics: Metrics,
        idle_policy: ev.IdlePolicy,
        on_change: Callable[[], None],
        on_events: Callable[[list[ev.ServerEvent]], None],
    ) -> None:
        self.idle_policy: ev.IdlePolicy = idle_policy
        self.stats = ProductionStats()
        self._conversation = conversation
        self._pacer = pacer
        self._stream = stream
        self._worker = worker
        self._config = config
        self._metrics = metrics
        self._on_change = on_change
        self._on_events = on_events
        self._wake = asyncio.Event()
        self._next_chunk: int | None = None
        self._longest_chunk = SHORT_CHUNK
        self._committed = False

    def wake(self) -> None:
        """Something changed: audio came, a frame left, a cancel."""
        self._wake.set()

    async def run(self) -> None:
        """Generate until cancelled. Raises what the engine raises."""
        loop = asyncio.get_running_loop()

        def emit(frame: MediaFrame) -> None:
            loop.call_soon_threadsafe(self._on_frame, frame)

        while True:
            self._wake.clear()
            now_s = time.monotonic()
            order = self._next_order(now_s)
            if order is None:
                await self._wait(now_s)
                continue
            obsolete = partial(self._is_obsolete, order.input.generation)
            outcome = await self._worker.run(
                partial(self._stream.step, order, emit, obsolete),
                deadline_s=now_s + self._lead_s(now_s),
            )
            self._take(order, outcome)

    async def close(self) -> None:
        """Free the stream on the engine thread."""
        await self._worker.run(self._stream.close, deadline_s=time.monotonic())

    def _is_obsolete(self, generation: int) -> bool:
        """Asked by the engine thread between denoising steps."""
        return self._conversation.generation != generation

    def _on_frame(self, frame: MediaFrame) -> None:
        if self._conversation.offer(frame):
            self._on_change()

    def _take(self, order: Order, outcome: Outcome) -> None:
        if outcome.frames:
            self.stats.add(outcome)
            played_s = outcome.frames * FRAME_S
            self._metrics.chunk_generate.labels(stage="engine").observe(outcome.generate_s)
            self._metrics.chunk_generate.labels(stage="encode").observe(outcome.encode_s)
            if outcome.speech:
                seconds = outcome.generate_s + outcome.encode_s
                self._metrics.chunk_realtime_factor.observe(seconds / played_s)
        current = order.input.generation == self._conversation.generation
        self._next_chunk = outcome.next_chunk if current else None
        self._longest_chunk = outcome.longest_chunk
        self._committed = outcome.committed
        events = self._conversation.report(
            generation=order.input.generation,
            response=order.input.response,
            buffered_samples=outcome.buffered_samples,
            finished=outcome.finished,
            now_s=time.monotonic(),
        )
        if events:
            self._on_events(events)

    def _lead_s(self, now_s: float) -> float:
        """How long the client can play from what was sent and what is ready."""
        conversation = self._conversation
        end_s = self._pacer.playback_end_s(conversation.next_index, now_s)
        return end_s - now_s + len(conversation.ready) * FRAME_S

    def _min_chunk(self, now_s: float) -> int:
        """The shortest chunk worth making now: long while the client has enough to play."""
        if self._pacer.late_s(self._conversation.next_index, now_s) > HURRY_S:
            return SHORT_CHUNK
        factor = self.stats.realtime_factor or 1.0
        long_s = factor * new_frames(LONG_CHUNK) * FRAME_S
        return LONG_CHUNK if self._lead_s(now_s) > long_s + MARGIN_S else MIDDLE_CHUNK

    def _idle_wanted(self, now_s: float) -> bool:
        if self._lead_s(now_s) >= self._config.idle_lead_ms / 1000:
            return False
        head = self._conversation.head
        if head is None or not head.generated:
            return True
        return self._pacer.late_s(self._conversation.next_index, now_s) > STARVED_S

    def _next_order(self, now_s: float) -> Order | None:
        conversation = self._conversation
        allow_speech = len(conversation.ready) < MAX_READY_FRAMES
        allow_idle = self._idle_wanted(now_s)
        min_chunk = self._min_chunk(now_s)
        # After silence the engine makes no long chunk: waiting for one would never end.
        enough = min(min_chunk, self._longest_chunk)
        speech = self._next_chunk is not None and (self._committed or self._next_chunk >= enough)
        if not (conversation.has_input or (allow_speech and speech) or allow_idle):
            return None
        if conversation.head is not None:
            self._metrics.input_buffer.observe(conversation.buffered_ms / 1000)
        return Order(
            input=conversation.take_input(),
            sent_ordinal=conversation.last_ordinal,
            allow_speech=allow_speech,
            min_chunk=min_chunk,
            allow_idle=allow_idle,
            idle_policy=self.idle_policy,
            idle_chunk_frames=self._config.idle_chunk_frames,
        )

    async def _wait(self, now_s: float) -> None:
        until_idle_s = self._lead_s(now_s) - self._config.idle_lead_ms / 1000
        wait_s = min(max(until_idle_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass
