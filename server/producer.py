"""Decides, for one session, what the engine does next, and gives it to the engine thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from functools import partial

import structlog

from visavis.engine.plan import CHUNK_LENGTHS, ENGINE_RATE, FPS, new_frames
from visavis.server import events as ev
from visavis.server.chunk_policy import MARGIN_S, ChunkPolicy
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation, MediaFrame
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.pacing import FRAME_S, Pacer
from visavis.server.production_stats import ProductionStats
from visavis.server.stream import EngineStream, Order, Outcome

log = structlog.get_logger(__name__)

# Frames that may wait for their time to be sent: one steady chunk, so that the next is begun
# while the client still has the lead of the one before.
MAX_READY_FRAMES = new_frames(CHUNK_LENGTHS[-1])
# An utterance whose audio stops for so long lets the avatar go idle until it goes on.
STARVED_S = 0.4
# A client that has waited so long gets the little that there is.
HURRY_S = 0.2
# Idle frames are made so long before they may be sent.
IDLE_AHEAD_S = 0.16
IDLE_REPEATS = 6
# Audio at other rates than the engine's is final so much later.
RESAMPLING_S = 0.015
LONGEST_WAIT_S = 0.25
SHORTEST_WAIT_S = 0.005


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
        host: ModelHost,
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
        self._host = host
        self._config = config
        self._metrics = metrics
        self._on_change = on_change
        self._on_events = on_events
        self._wake = asyncio.Event()
        self._longest_chunk = CHUNK_LENGTHS[1]  # as after silence
        self._ask_again_at_s: float | None = None
        self._turn: Order | None = None
        self._idling = False
        self._idle_unwanted = False
        self._cut = False
        self._speaks = False

    @property
    def degraded(self) -> list[ev.Degradation]:
        """What is lowered at present, so that frames come in time."""
        return list(self._host.load.degraded)

    @property
    def num_steps(self) -> int:
        """Denoising steps in use."""
        return self._host.load.num_steps

    def wake(self) -> None:
        """Something changed: audio came, a frame left, a cancel."""
        if self._turn is not None:
            if self._idling and not self._idle_unwanted:
                self._idle_unwanted = self._speech_can_begin()
            if self._is_obsolete(self._turn.input.generation):
                self._host.worker.nudge()
        self._wake.set()

    async def run(self) -> None:
        """Generate until cancelled. Raises what the engine raises."""
        loop = asyncio.get_running_loop()

        def emit(frame: MediaFrame) -> None:
            loop.call_soon_threadsafe(self._on_frame, frame)

        try:
            while True:
                self._wake.clear()
                now_s = time.monotonic()
                self._count_speaker(self._conversation.has_open_responses)
                order = self._next_order(now_s)
                if order is None:
                    await self._wait(now_s)
                    continue
                self._turn, self._idle_unwanted = order, False
                obsolete = partial(self._is_obsolete, order.input.generation)
                start = partial(self._stream.start, order, self._host.scheduler, emit, obsolete)
                turn = await self._host.worker.run(start, deadline_s=order.deadline_s)
                self._idling = turn.idle
                self.wake()
                # The engine thread ends its turn also when nobody waits for it any more.
                outcome = await asyncio.shield(asyncio.wrap_future(turn.ended))
                self._turn, self._idling = None, False
                self._take(order, outcome)
        finally:
            self._count_speaker(False)

    async def close(self) -> None:
        """Free the stream on the engine thread."""
        await self._host.worker.run(self._stream.close, deadline_s=time.monotonic())

    def _is_obsolete(self, generation: int) -> bool:
        """Asked by the engine thread between denoising steps and frames."""
        return self._idle_unwanted or self._conversation.generation != generation

    def _on_frame(self, frame: MediaFrame) -> None:
        if self._conversation.offer(frame):
            self._on_change()

    def _count_speaker(self, speaks: bool) -> None:
        self._host.load.speaking += int(speaks) - int(self._speaks)
        self._speaks = speaks

    def _take(self, order: Order, outcome: Outcome) -> None:
        now_s = time.monotonic()
        if outcome.frames:
            self._account(outcome, now_s)
        current = order.input.generation == self._conversation.generation
        self._longest_chunk = outcome.longest_chunk
        self._cut = outcome.abandoned and not outcome.speech
        again_s = outcome.ask_again_s if current else None
        self._ask_again_at_s = None if again_s is None else now_s + again_s
        events = self._conversation.report(
            generation=order.input.generation,
            response=order.input.response,
            buffered_samples=outcome.buffered_samples,
            finished=outcome.finished,
            now_s=now_s,
        )
        if events:
            self._on_events(events)

    def _account(self, outcome: Outcome, now_s: float) -> None:
        self.stats.add(outcome)
        played_s = outcome.frames * FRAME_S
        generate_s = outcome.busy_s - outcome.encode_s
        self._metrics.chunk_generate.labels(stage="engine").observe(max(0.0, generate_s))
        self._metrics.chunk_generate.labels(stage="encode").observe(outcome.encode_s)
        self._metrics.tracing.record(
            "visavis.chunk",
            outcome.busy_s,
            {
                "visavis.speech": outcome.speech,
                "visavis.frames": outcome.frames,
                "visavis.encode_s": outcome.encode_s,
                "visavis.wait_s": outcome.wait_s or 0.0,
                "visavis.realtime_factor": outcome.busy_s / played_s,
                "gen_ai.server.time_per_output_chunk": outcome.busy_s / outcome.frames,
            },
        )
        if outcome.speech:
            self._metrics.chunk_realtime_factor.observe(outcome.busy_s / played_s)
        load = self._host.load
        if outcome.chunk_frames and outcome.frames == new_frames(outcome.chunk_frames):
            wait_s = outcome.wait_s if outcome.speech else None
            load.observe(outcome.chunk_frames, busy_s=outcome.busy_s, wait_s=wait_s)
        if load.update(now_s):
            log.info("quality changed", degraded=load.degraded, num_steps=load.num_steps)

    def _lead_s(self, now_s: float) -> float:
        """How long the client can play from what was sent and what is ready."""
        return self._sent_lead_s(now_s) + len(self._conversation.ready) * FRAME_S

    def _sent_lead_s(self, now_s: float) -> float:
        end_s = self._pacer.playback_end_s(self._conversation.next_index, now_s)
        return end_s - now_s

    def _supply(self) -> tuple[int, bool]:
        """Frames of the response in turn whose audio is there, about; whether it is whole."""
        head = self._conversation.head
        if head is None:
            return 0, False
        rate = self._conversation.rate
        samples = self._conversation.buffered_ms * rate / 1000
        margin = 0 if rate == ENGINE_RATE else RESAMPLING_S * rate
        return max(0, int((samples - margin) * FPS / rate)), head.committed

    def _speech_can_begin(self) -> bool:
        ready, committed = self._supply()
        return committed or ready >= self._host.load.first_frames

    def _idle_wanted(self, now_s: float) -> bool:
        lead_s = self._config.idle_lead_ms / 1000
        if self.idle_policy == "generate":
            lead_s = max(lead_s, self._host.load.start_s()[self._idle_chunk] + MARGIN_S)
        if self._lead_s(now_s) >= lead_s:
            return False
        head = self._conversation.head
        if head is None:
            return True
        if not head.generated:
            return not self._speech_can_begin()
        return self._pacer.late_s(self._conversation.next_index, now_s) > STARVED_S

    @property
    def _idle_chunk(self) -> int:
        """Long chunks cost least; a face that then freezes needs but one frame."""
        return CHUNK_LENGTHS[0] if self.idle_policy == "freeze" else self._config.idle_chunk_frames

    def _speech_policy(self, now_s: float) -> ChunkPolicy | None:
        """None while enough is ready, or while there cannot be anything to say."""
        conversation = self._conversation
        if conversation.head is None or len(conversation.ready) >= MAX_READY_FRAMES:
            return None
        ready, committed = self._supply()
        if not ready and not committed:
            return None
        late_s = self._pacer.late_s(conversation.next_index, now_s)
        return ChunkPolicy(
            lead_s=self._lead_s(now_s),
            start_s=self._host.load.start_s(),
            first_frames=self._host.load.first_frames,
            hurry=late_s > HURRY_S,
        )

    def _next_order(self, now_s: float) -> Order | None:
        conversation = self._conversation
        policy = self._speech_policy(now_s)
        chunk = None
        if policy is not None:
            ready, committed = self._supply()
            chunk = policy.choose(ready=ready, committed=committed, longest=self._longest_chunk)
        allow_idle = chunk is None and self._idle_wanted(now_s)
        if not (conversation.has_input or self._cut or chunk is not None or allow_idle):
            return None
        if conversation.head is not None:
            self._metrics.input_buffer.observe(conversation.buffered_ms / 1000)
        after_silence = self._longest_chunk < CHUNK_LENGTHS[-1]
        cut_ordinal = self._cut_idle(now_s, chunk)
        lead_s = self._lead_s(now_s)
        return Order(
            input=conversation.take_input(),
            speech=policy,
            allow_idle=allow_idle,
            idle_policy=self.idle_policy,
            idle_chunk_frames=self._idle_chunk,
            idle_frames=IDLE_REPEATS,
            idle_ahead_s=self._config.idle_lead_ms / 1000 + IDLE_AHEAD_S,
            deadline_s=now_s if after_silence and chunk is not None else now_s + lead_s,
            urgent=after_silence and chunk is not None,
            num_steps=self._host.load.num_steps,
            cut_ordinal=cut_ordinal,
        )

    def _cut_idle(self, now_s: float, chunk: int | None) -> int | None:
        """Before speech, throw away the idle frames that nobody need see meanwhile.

        Returns the engine's number of the last one that will be seen, if any were cut off.
        """
        ready = self._conversation.ready
        idle_ready = bool(ready) and all(frame.response == 0 for frame in ready)
        if chunk is not None and idle_ready:
            needed_s = self._host.load.start_s()[chunk] + MARGIN_S - self._sent_lead_s(now_s)
            keep = max(0, math.ceil(needed_s / FRAME_S))
            while len(ready) > keep:
                ready.pop()
                self._cut = True
        if not self._cut:
            return None
        self._cut = False
        return ready[-1].ordinal if ready else self._conversation.last_ordinal

    async def _wait(self, now_s: float) -> None:
        until_idle_s = self._lead_s(now_s) - self._config.idle_lead_ms / 1000
        wait_s = min(max(until_idle_s, SHORTEST_WAIT_S), LONGEST_WAIT_S)
        if self._ask_again_at_s is not None:
            wait_s = min(wait_s, max(self._ask_again_at_s - now_s, SHORTEST_WAIT_S))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
