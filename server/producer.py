"""Gives one session's turns to the engine thread, and takes in what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import structlog

from visavis.engine.parallel.loss import GroupLostError
from visavis.engine.plan import new_frames
from visavis.server import events as ev
from visavis.server.config import ServerConfig
from visavis.server.conversation import FRAME_US, Conversation, MediaFrame
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.order import Order, Outcome, StreamState, Turn
from visavis.server.pacing import FRAME_S, Pacer
from visavis.server.picture_stream import scaled_size
from visavis.server.production_stats import ProductionStats
from visavis.server.stream import EngineStream
from visavis.server.timeline import FrameInTheMaking, Picture
from visavis.server.turn_planner import TurnPlanner

log = structlog.get_logger(__name__)

LONGEST_WAIT_S = 0.25
SHORTEST_WAIT_S = 0.005
# Who has spoken may be expected to speak again within this time.
CONVERSES_S = 3.0


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
        output: ev.EffectiveOutput,
        idle_policy: ev.IdlePolicy,
        on_change: Callable[[], None],
        on_events: Callable[[list[ev.ServerEvent]], None],
    ) -> None:
        self.planner = TurnPlanner(
            conversation=conversation,
            pacer=pacer,
            host=host,
            config=config,
            metrics=metrics,
            idle_policy=idle_policy,
        )
        self.stats = ProductionStats()
        self._conversation = conversation
        self._stream = stream
        self._host = host
        self._metrics = metrics
        self._output = output
        size = (output.height, output.width)
        self._picture_s = host.load.picture_s(output.video, size, output.fps)
        self._on_change = on_change
        self._on_events = on_events
        self._wake = asyncio.Event()
        self._ask_again_at_s: float | None = None
        self._turn: Order | None = None
        self._idling = False
        self._idle_unwanted = False
        self._stopping = False
        self._speaks = self._converses = False
        self._spoke_s = float("-inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None

    def session_stats(self, *, dropped: int) -> ev.SessionStats:
        """How the engine keeps up with this session; `dropped` pictures were left out so far."""
        output, quality = self._output, self._host.load.quality
        size = scaled_size((output.height, output.width), quality.scale)
        fps = min(output.fps, quality.fps)
        pictures = output.video != "none"
        told: dict[ev.Degradation, bool] = {
            "steps": True,
            "size": pictures and size != (output.height, output.width),
            "fps": pictures and fps < output.fps,
        }
        factor = self.stats.realtime_factor
        return ev.SessionStats(
            rtf=None if factor is None else round(factor, 3),
            gen_fps=round(self.stats.frames_per_s, 1),
            queue_ms=len(self._conversation.ready) * FRAME_US / 1000,
            encode_ms=round(self.stats.encode_ms, 3),
            dropped=dropped,
            degraded=[lever for lever in self._host.load.degraded if told[lever]],
            num_steps=quality.num_steps,
            height=size[0],
            width=size[1],
            fps=fps,
        )

    def wake(self) -> None:
        """Something changed: audio came, a frame left, a cancel."""
        if self._turn is not None:
            if self._idling and not self._idle_unwanted:
                another = self._turn.listening != self._conversation.listening
                self._idle_unwanted = another or self.planner.speech_can_begin()
            if self._is_obsolete(self._turn.input.generation):
                self._host.worker.nudge()
        self._wake.set()

    def stop(self) -> None:
        """Let `run` return as soon as the engine leaves its chunk; what was made of it stays."""
        self._stopping = True
        self.wake()

    async def save(self, *, max_bytes: int) -> StreamState:
        """A copy of the stream, after `stop`, that goes on after the last frame that is ready.

        Raises ValueError when it is larger than `max_bytes`, or WorkerBusyError.
        """
        ready = self._conversation.ready
        last = ready[-1].ordinal if ready else self._conversation.last_ordinal
        save = partial(self._stream.save, last, max_bytes=max_bytes)
        return await self._host.worker.run(save, deadline_s=time.monotonic())

    async def run(self) -> None:
        """Generate until `stop`, until the conversation is closed, or until cancelled. Raises what
        the engine raises."""
        loop = self._loop = asyncio.get_running_loop()

        def emit(frame: MediaFrame) -> None:
            loop.call_soon_threadsafe(self._on_frame, frame)

        try:
            # Nobody takes a frame of a closed one: it would be idled for without end.
            while not (self._stopping or self._conversation.closed):
                if self._failure is not None:
                    raise self._failure
                self._wake.clear()
                now_s = time.monotonic()
                if not self._host.computes:
                    await self._wait(now_s)
                    continue
                self._count_speaker(self._conversation.has_open_responses, now_s)
                order = self.planner.next_order(now_s)
                if order is None:
                    await self._wait(now_s)
                    continue
                self._turn, self._idle_unwanted = order, False
                obsolete = partial(self._is_obsolete, order.input.generation)
                start = partial(self._stream.start, order, self._host.scheduler, emit, obsolete)
                try:
                    outcome = await self._turn_of(start, order)
                except GroupLostError:
                    outcome = await self._recovered(order)
                self._turn, self._idling = None, False
                self._take(order, outcome)
        finally:
            self._count_speaker(False, float("inf"))

    async def _turn_of(self, start: Callable[[], Turn], order: Order) -> Outcome:
        turn = await self._host.worker.run(start, deadline_s=order.deadline_s)
        self._idling = turn.idle
        self.wake()
        # The engine thread ends its turn also when nobody waits for it any more.
        return await asyncio.shield(asyncio.wrap_future(turn.ended))

    async def _recovered(self, order: Order) -> Outcome:
        """The turn was lost with processes of the engine: what is left of it."""
        while True:
            recover = partial(self._stream.recover, order)
            with contextlib.suppress(GroupLostError):
                return await self._host.worker.run(recover, deadline_s=time.monotonic())
            await self._wait(time.monotonic())

    async def close(self) -> None:
        """Free the stream on the engine thread."""
        await self._host.worker.run(self._stream.close, deadline_s=time.monotonic())

    def _is_obsolete(self, generation: int) -> bool:
        """Asked by the engine thread between denoising steps and frames."""
        unwanted = self._idle_unwanted or self._stopping
        return unwanted or self._conversation.generation != generation

    def _on_frame(self, frame: MediaFrame) -> None:
        if self._conversation.offer(frame):
            if isinstance(frame, FrameInTheMaking):
                frame.picture.add_done_callback(self._picture_done)
            self._on_change()

    def _picture_done(self, picture: Future[Picture]) -> None:
        """On the thread that made it."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._on_picture, picture)

    def _on_picture(self, picture: Future[Picture]) -> None:
        if not picture.cancelled() and picture.exception() is not None:
            self._failure = picture.exception()
            self.wake()
        self._on_change()

    def _count_speaker(self, speaks: bool, now_s: float) -> None:
        if speaks:
            self._spoke_s = now_s
        converses = now_s - self._spoke_s < CONVERSES_S
        load = self._host.load
        load.speaking += int(speaks) - int(self._speaks)
        load.conversing += int(converses) - int(self._converses)
        self._speaks, self._converses = speaks, converses

    def _take(self, order: Order, outcome: Outcome) -> None:
        now_s = time.monotonic()
        if outcome.frames:
            self._account(outcome, now_s)
        current = order.input.generation == self._conversation.generation
        self.planner.turn_ended(outcome)
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
        stages = {"encode": outcome.encode_s}
        if outcome.chunk_frames:
            stages |= {
                "audio": outcome.prepare_s,
                "dit": outcome.denoise_s,
                "vae": outcome.decode_s,
            }
        for stage, seconds in stages.items():
            self._metrics.chunk_generate.labels(stage=stage).observe(seconds)
        self._metrics.tracing.record(
            "visavis.chunk",
            outcome.busy_s,
            {
                "visavis.speech": outcome.speech,
                "visavis.frames": outcome.frames,
                **{f"visavis.{stage}_s": seconds for stage, seconds in stages.items()},
                "visavis.wait_s": outcome.wait_s or 0.0,
                "visavis.realtime_factor": outcome.busy_s / played_s,
                "gen_ai.server.time_per_output_chunk": outcome.busy_s / outcome.frames,
            },
        )
        # Of a chunk that was cut off, most was done before its first frame.
        if outcome.speech and not outcome.abandoned:
            self._metrics.chunk_realtime_factor.observe(outcome.busy_s / played_s)
        load = self._host.load
        if outcome.chunk_frames and outcome.frames == new_frames(outcome.chunk_frames):
            wait_s = outcome.wait_s if outcome.speech else None
            load.observe(
                outcome.chunk_frames,
                busy_s=outcome.busy_s,
                wait_s=wait_s,
                encode_s=outcome.encode_s,
                picture_s=self._picture_s,
            )
        if load.update(now_s):
            log.info("quality changed", degraded=load.degraded, num_steps=load.num_steps)

    async def _wait(self, now_s: float) -> None:
        wait_s = min(max(self.planner.until_idle_s(now_s), SHORTEST_WAIT_S), LONGEST_WAIT_S)
        if self._ask_again_at_s is not None:
            wait_s = min(wait_s, max(self._ask_again_at_s - now_s, SHORTEST_WAIT_S))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
