"""A producer, an engine of known speed and a client, on a clock that runs as fast as the test."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.batching import ChunkScheduler
from visavis.engine.costs import ChunkCosts
from visavis.engine.idle import IdleLoop
from visavis.engine.pipeline import ChunkFrame, ChunkState
from visavis.engine.session import AvatarSession
from visavis.server import producer as producer_module
from visavis.server import stream as stream_module
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.engine_load import EngineLoad
from visavis.server.events import EffectiveOutput, IdlePolicy, OutputMedia
from visavis.server.media_source import MediaSource
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer
from visavis.server.picture_stream import PictureStream
from visavis.server.producer import Producer
from visavis.server.stream import EngineStream, IdleLoops

RATE = 16_000

CALM = 0.5
OUTPUT = EffectiveOutput(
    video="h264",
    codec="avc1.42C00A",
    audio="pcm16",
    audio_rate=RATE,
    fps=25,
    width=256,
    height=256,
    quality=85,
)
# As measured with the embedded model on two idle cores: docs/architecture.md, "Scheduling"; what
# chunks of 13 frames cost lies between.
TWO_CORES = ChunkCosts(
    steps_s={
        9: {1: 0.011, 2: 0.0156, 4: 0.0228},
        13: {1: 0.0124, 2: 0.0184, 4: 0.0299},
        17: {1: 0.0137, 2: 0.0212, 4: 0.037},
        33: {1: 0.0211, 2: 0.0336, 4: 0.0606},
    },
    prepare_s=0.002,
    first_frame_s=0.008,
    frame_s=0.0065,
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waiting takes no time; the clock jumps to the next thing that happens."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__(selectors.DefaultSelector())
        real = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None = None) -> Any:
            if timeout:
                self.now_s += timeout
            return real(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s


def run_virtually(
    monkeypatch: pytest.MonkeyPatch, main: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Run `main` on a virtual clock that the producer and the stream read, too."""
    loop = VirtualLoop()
    clock = SimpleNamespace(monotonic=loop.time)
    for module in (producer_module, stream_module):
        monkeypatch.setattr(module, "time", clock)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
    finally:
        for module in (producer_module, stream_module):
            monkeypatch.setattr(module, "time", time)


@dataclass(eq=False)
class Job:
    """A ChunkJob as far as sessions and the scheduler look at it."""

    chunk_frames: int
    shown: int
    steps_left: int
    temperature: float = 1.0
    generator: torch.Generator = field(default_factory=torch.Generator)

    @property
    def shape(self) -> int:
        return self.chunk_frames

    @property
    def denoised(self) -> bool:
        return self.steps_left == 0


class TimedPipeline:
    """Makes grey frames and says how long that takes; `slowness` times what `costs` say."""

    front_end = MelFrontEnd()

    def __init__(self, costs: ChunkCosts) -> None:
        self.costs = costs
        self.slowness = 1.0
        self.spent_s = 0.0
        self.chunks: list[Job] = []
        self.decoded = 0

    def take_spent_s(self) -> float:
        spent_s, self.spent_s = self.spent_s, 0.0
        return spent_s * self.slowness

    def first_state(self, conditions: Any, seed: int) -> ChunkState:
        return ChunkState(torch.zeros(1), torch.Generator().get_state())

    def start_chunk(
        self,
        state: ChunkState,
        features: NDArray[np.float32],
        conditions: Any,
        *,
        shown: int,
        num_steps: int,
        temperature: float = 1.0,
    ) -> Job:
        self.spent_s += self.costs.prepare_s
        job = Job(len(features) - 2, shown, num_steps, temperature)
        self.chunks.append(job)
        return job

    def denoise(self, jobs: Sequence[Job]) -> None:
        steps_s = self.costs.steps_s[jobs[0].chunk_frames]
        known = max(b for b in steps_s if b <= len(jobs))
        self.spent_s += steps_s[known] * len(jobs) / known
        for job in jobs:
            job.steps_left -= 1

    def decode(self, job: Job) -> Iterator[ChunkFrame]:
        for position in range(job.shown):
            self.spent_s += self.costs.frame_s if position else self.costs.first_frame_s
            self.decoded += 1
            last = position == job.shown - 1
            pose = torch.zeros(1)
            state = ChunkState(pose, job.generator.get_state()) if last else None
            yield ChunkFrame(np.zeros((2, 2, 3), np.uint8), pose, state)

    def hand_over(self, poses: Sequence[torch.Tensor], conditions: Any) -> torch.Tensor:
        return poses[-1]


class VirtualWorker:
    """The engine thread as a task: one piece of work or one step after the other, taking time."""

    def __init__(self, pipeline: TimedPipeline, scheduler: ChunkScheduler) -> None:
        self.busy_s = 0.0
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._queue: list[tuple[float, int, Callable[[], Any], asyncio.Future[Any]]] = []
        self._count = 0
        self._wake = asyncio.Event()

    def nudge(self) -> None:
        self._wake.set()

    async def run(self, work: Callable[[], Any], *, deadline_s: float) -> Any:
        self._count += 1
        future = asyncio.get_running_loop().create_future()
        self._queue.append((deadline_s, self._count, work, future))
        self._wake.set()
        return await future

    async def serve(self) -> None:
        while True:
            self._wake.clear()
            if self._queue and self._queue_first():
                self._queue.sort(key=lambda item: item[:2])
                _, _, work, future = self._queue.pop(0)
                try:
                    result = work()
                except Exception as error:  # told to the one who waits
                    future.set_exception(error)
                    continue
                await self._take_time()
                if not future.done():
                    future.set_result(result)
            elif self._scheduler.wait_s() == 0:
                self._scheduler.tick()
                await self._take_time()
            else:
                try:
                    async with asyncio.timeout(self._scheduler.wait_s()):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def _queue_first(self) -> bool:
        return min(item[0] for item in self._queue) <= self._scheduler.deadline_s()

    async def _take_time(self) -> None:
        spent_s = self._pipeline.take_spent_s()
        self.busy_s += spent_s
        await asyncio.sleep(spent_s)


@dataclass
class Sent:
    """One frame as it went out."""

    at_s: float
    response: int
    late_s: float
    epoch: int
    flags: int


class VirtualClient:
    """A producer and what it sends, for one session; speech comes from `speak`."""

    def __init__(self, engine: VirtualEngine, *, idle: IdlePolicy, seed: int) -> None:
        self.sent: list[Sent] = []
        self.producing: asyncio.Task[None]
        self.conversation = Conversation(rate=RATE, max_buffered_input_ms=60_000)
        self.pacer = Pacer(speech_lead_s=1.12, idle_lead_s=0.24, max_inflight_us=1_500_000)
        self.source = MediaSource(self.conversation, self.pacer)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        pipeline: Any = engine.pipeline
        nobody: Any = None
        session = AvatarSession(
            pipeline, nobody, input_rate=RATE, seed=seed, num_steps=4, calm=CALM
        )
        pictures = PictureStream(OutputMedia(video="none"), (2, 2))
        self.stream = EngineStream(session, pictures, IdleLoops(IdleLoop(12), IdleLoop(12)))
        host: Any = engine
        self.producer = Producer(
            conversation=self.conversation,
            pacer=self.pacer,
            stream=self.stream,
            host=host,
            config=engine.config,
            metrics=Metrics(),
            output=OUTPUT,
            idle_policy=idle,
            on_change=self._wake.set,
            on_events=lambda events: self._wake.set(),
        )

    async def send(self) -> None:
        """Play out, as Outbound does."""
        while True:
            now_s = self._loop.time()
            wait_s = self.source.wait_s(now_s)
            if wait_s is None or wait_s > 0:
                self._wake.clear()
                try:
                    # A clock that stands still while anything runs needs whole steps.
                    async with asyncio.timeout(0.1 if wait_s is None else max(wait_s, 1e-4)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            late_s = self.source.late_s(now_s)
            header = self.source.take(now_s).header
            self.sent.append(Sent(now_s, header.response, late_s, header.epoch, int(header.flags)))
            self.producer.wake()

    async def speak(self, seconds: float, *, live: bool, piece_s: float = 0.02) -> list[Sent]:
        """Say something, at once or as it is spoken; returns its frames once all were sent."""
        before = len(self.sent)
        pieces = round(seconds / piece_s)
        for number in range(pieces):
            if live:
                await asyncio.sleep(piece_s)
            self.conversation.append(bytes(2 * round(RATE * piece_s)), None, self._loop.time())
            self.producer.wake()
            if number == 0 and not live:
                await asyncio.sleep(0)
        self.conversation.commit(None)
        self.producer.wake()
        while self.conversation.has_open_responses:
            assert not self.producing.done(), self.producing.exception()
            await asyncio.sleep(0.02)
            self.conversation.tick(self._loop.time())
        return [frame for frame in self.sent[before:] if frame.response]

    def cancel(self) -> None:
        """Barge-in."""
        now_s = self._loop.time()
        self.conversation.cancel(shown_pts_us=self.pacer.shown_pts_us(now_s))
        self.pacer.restart(self.conversation.next_pts_us, now_s)
        self.producer.wake()


class VirtualEngine:
    """What a ModelHost is to its producers."""

    computes = True

    def __init__(self, costs: ChunkCosts = TWO_CORES, **settings: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self.pipeline = TimedPipeline(costs)
        denoiser: Any = self.pipeline
        self.scheduler = ChunkScheduler(denoiser, costs.caps, clock=self._now_s)
        self.worker = VirtualWorker(self.pipeline, self.scheduler)
        self.config = ServerConfig(**settings)
        policy = self.config.degrade_policy
        self.load = EngineLoad(lambda: costs, num_steps=4, policy=policy)
        self._tasks: list[asyncio.Task[None]] = []

    def places(self, picture_s: float | None = None) -> int:
        return self.config.max_sessions or 1

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self.worker.serve()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):  # a cancelled task is none
                raise result

    def _now_s(self) -> float:
        """The scheduler's clock also sees the time that its own work will take."""
        return self._loop.time() + self.pipeline.spent_s * self.pipeline.slowness

    def forget(self, client: VirtualClient) -> None:
        """Its error was expected."""
        self._tasks.remove(client.producing)

    @asynccontextmanager
    async def client(
        self, *, idle: IdlePolicy = "generate", seed: int = 0
    ) -> AsyncIterator[VirtualClient]:
        """A session that idles until it speaks."""
        client = VirtualClient(self, idle=idle, seed=seed)
        client.producing = asyncio.create_task(client.producer.run())
        own = [client.producing, asyncio.create_task(client.send())]
        self._tasks += own
        yield client
        for task in own:
            task.cancel()
        await asyncio.wait(own)
