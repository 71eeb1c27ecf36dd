"""As many as are admitted do speak without stutter, live, interrupting the avatar as people do.

Whole sessions on a clock of their own, with an engine about as fast as the embedded model is at
256x256 on two cores, pictures included. Chunks of each speaker come at moments of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from virtual_engine import RATE, VirtualClient, VirtualEngine, run_virtually

from visavis.engine.costs import ChunkCosts
from visavis.server.bench_chunks import Playout
from visavis.server.bench_client import FRAME_S
from visavis.server.bench_ramp import STALLED_SHARE
from visavis.server.bench_speaker import PAUSE_S, TURN_S, plan

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
SECONDS = 60.0


@pytest.fixture
def virtually(monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda main: run_virtually(monkeypatch, main)


def embedded(factor: float = 1.0) -> ChunkCosts:
    """What chunks cost there, times `factor`."""
    steps_s = {
        9: {1: 0.020, 2: 0.027, 4: 0.044},
        13: {1: 0.023, 2: 0.033, 4: 0.056},
        17: {1: 0.026, 2: 0.039, 4: 0.068},
        33: {1: 0.037, 2: 0.058, 4: 0.105},
    }
    return ChunkCosts(
        steps_s={
            length: {batch: factor * seconds for batch, seconds in by_batch.items()}
            for length, by_batch in steps_s.items()
        },
        prepare_s=0.005 * factor,
        first_frame_s=0.0095 * factor,
        frame_s=0.0045 * factor,
    )


@dataclass
class Heard:
    """What players with the buffer of the load test made of it."""

    speech_s: float = 0.0
    stalled_s: float = 0.0

    def add(self, client: VirtualClient) -> None:
        playout, epoch, response = Playout(), 0, 0
        for index, frame in enumerate(client.sent):
            if frame.epoch != epoch or frame.response not in (0, response):
                playout.restart()
                epoch, response = frame.epoch, frame.response or response
            late_s = playout.arrive(index * FRAME_S, frame.at_s)
            if frame.response:
                self.speech_s += FRAME_S
                self.stalled_s += late_s

    @property
    def stalled_share(self) -> float:
        return self.stalled_s / self.speech_s


async def talk(client: VirtualClient, number: int, delay_s: float) -> None:
    """The talk of the load test's speaker of that number."""
    loop = asyncio.get_running_loop()
    start_s = loop.time() + PAUSE_S[0] + delay_s
    for said in plan(start_s, start_s + SECONDS, number):
        end_s = said.length_s if said.cut_s is None else said.cut_s
        for piece in range(1, max(1, int(end_s / FRAME_S)) + 1):
            await asyncio.sleep(said.start_s + piece * FRAME_S - loop.time())
            client.conversation.append(bytes(2 * round(RATE * FRAME_S)), None, loop.time())
            client.producer.wake()
        if said.cut_s is None:
            client.conversation.commit(None)
            client.producer.wake()
        else:
            await asyncio.sleep(said.start_s + said.cut_s - loop.time())
            client.cancel()


async def follow(client: VirtualClient) -> None:
    """Let responses end when they have been heard, as Outbound does."""
    while True:
        await asyncio.sleep(FRAME_S)
        client.conversation.tick(asyncio.get_running_loop().time())


async def converse(engine: VirtualEngine, sessions: int) -> Heard:
    """So many live speakers at a time."""
    heard = Heard()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(engine.client(seed=number))
            for number in range(sessions)
        ]
        followers = [asyncio.create_task(follow(client)) for client in clients]
        await asyncio.sleep(2)
        talks = (talk(c, n, TURN_S * n / sessions) for n, c in enumerate(clients))
        await asyncio.gather(*talks)
        for follower in followers:
            follower.cancel()
        for client in clients:
            heard.add(client)
    return heard


@pytest.mark.parametrize(("factor", "places"), [(0.6, 3), (0.85, 2), (1.1, 2), (1.6, 1)])
def test_as_many_as_are_admitted_do_not_stutter(factor: float, places: int, virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine(embedded(factor)) as engine:
            assert engine.load.capacity == places
            heard = await converse(engine, places)
            assert heard.speech_s > 0.4 * SECONDS * places
            assert heard.stalled_share < STALLED_SHARE

    virtually(main)


@pytest.mark.parametrize(("factor", "sessions"), [(0.85, 3), (1.4, 2)])
def test_one_more_than_is_admitted_would_stutter(
    factor: float, sessions: int, virtually: Run
) -> None:
    async def main() -> None:
        async with VirtualEngine(embedded(factor)) as engine:
            assert engine.load.capacity == sessions - 1
            heard = await converse(engine, sessions)
            assert heard.stalled_share >= STALLED_SHARE

    virtually(main)


def test_a_machine_slower_at_work_than_at_warm_up_admits_fewer(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine(embedded()) as engine:
            assert engine.load.capacity == 2
            engine.pipeline.slowness = 1.4
            heard = await converse(engine, 1)
            assert heard.stalled_share < STALLED_SHARE
            assert engine.load.capacity == 1

    virtually(main)


def test_one_who_speaks_alone_does_not_fill_a_machine_near_its_edge(virtually: Run) -> None:
    """With four frames a chunk the model would be at work all the time."""

    async def main() -> None:
        async with VirtualEngine(embedded(1.1)) as engine:
            engine.pipeline.slowness = 1.4
            await converse(engine, 1)
            made = [job.chunk_frames for job in engine.pipeline.chunks]
            # Short ones end utterances, and began the first before anything was known.
            assert made.count(13) > 5 * made.count(9)

    virtually(main)
