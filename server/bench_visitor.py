"""A visitor of `visavis bench soak --mixed`: talks, interrupts, rests, loses connections, goes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from visavis.server.bench import babble
from visavis.server.bench_chunks import Playout
from visavis.server.bench_client import (
    BenchClient,
    BenchError,
    Event,
    is_speech,
    open_client,
    resume_client,
)
from visavis.server.protocol import Frame, Kind

RATE = 16_000
PIECE = RATE // 25
Act = Literal["say", "interrupt", "rest", "reconnect"]
ACTS: tuple[Act, ...] = ("say", "interrupt", "rest", "reconnect")
SAY_S = (0.8, 4.0)
REST_S = (1.0, 10.0)
APART_S = (0.1, 2.0)
PLAYBACK_EVERY_S = 0.4
# Failures whose words are kept.
MAX_FAILURES = 20


@dataclass(slots=True)
class Tally:
    """What was done so far; `failures` are the first ones, `num_failures` counts all."""

    visits: int = 0
    completed: int = 0
    interrupted: int = 0
    resumed: int = 0
    rested_s: float = 0.0
    frames: int = 0
    damaged: int = 0
    num_failures: int = 0
    failures: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """A visit came to a bad end."""
        self.num_failures += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(why)


def visit_plan(generator: random.Random) -> list[Act]:
    """What a visitor does: everything once, and some of it again, in any order."""
    acts = [*ACTS, *generator.choices(ACTS, k=generator.randrange(4))]
    generator.shuffle(acts)
    return acts


class Visitor:
    """One session over however many connections."""

    def __init__(
        self, url: str, tally: Tally, generator: random.Random, *, rest_s: tuple[float, float]
    ) -> None:
        self.act: str = "coming"
        self._url = url
        self._tally = tally
        self._generator = generator
        self._rest_s = rest_s
        self._client: BenchClient
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._playout = Playout()
        self._last_seq: int | None = None
        self._last_event_id: str | None = None
        self._seen: set[str] = set()
        self._said = 0
        self._heard = bytearray()
        self._status: str | None = None

    @asynccontextmanager
    async def session(self, *, avatar: str, video: str) -> AsyncIterator[None]:
        """Come, and leave with a word."""
        opened = open_client(self._url, avatar=avatar, rate=RATE, video=video, on_disconnect="hold")
        try:
            self._attach(await self._stack.enter_async_context(opened))
            yield
            self.act = "leaving"
            await self._client.send("session.close")
        finally:
            await self._detach()

    def _attach(self, client: BenchClient) -> None:
        self._client = client
        self._playout.restart()
        listening = asyncio.create_task(self._listen(client))
        self._tasks = [listening, asyncio.create_task(self._report_playback(client))]

    async def _detach(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._stack.aclose()

    async def do(self, act: Act) -> None:
        """One thing. Raises BenchError when the server ends the session."""
        self.act = act
        if act == "rest":
            rest_s = self._generator.uniform(*self._rest_s)
            await self._while_connected(asyncio.sleep(rest_s))
            self._tally.rested_s += rest_s
            return
        pcm = self._utterance()
        if act == "interrupt":
            await self._talk(pcm, by_the_clock=True)
            await self._client.send("response.cancel")
            await self._done("cancelled")
            self._tally.interrupted += 1
            return
        await self._talk(pcm, by_the_clock=act == "say")
        await self._client.send("input_audio_buffer.commit")
        if act == "reconnect":
            await self._until(lambda: len(self._heard) > 0)
            await self._lose_and_resume()
        await self._done("completed")
        self._tally.completed += 1
        self._tally.damaged += bytes(self._heard) != pcm

    def _utterance(self) -> bytes:
        self._said += 1
        self._heard.clear()
        self._status = None
        samples = round(self._generator.uniform(*SAY_S) * RATE)
        return (
            babble(samples, RATE, seed=self._generator.randrange(1 << 30)).astype("<i2").tobytes()
        )

    async def _talk(self, pcm: bytes, *, by_the_clock: bool) -> None:
        start_s = time.monotonic()
        for number, first in enumerate(range(0, len(pcm), 2 * PIECE), start=1):
            if by_the_clock:
                due_s = start_s + number * PIECE / RATE
                await self._while_connected(asyncio.sleep(max(0.0, due_s - time.monotonic())))
            await self._client.send_audio(pcm[first : first + 2 * PIECE])

    async def _lose_and_resume(self) -> None:
        handle = self._client.handle
        if handle is None:
            raise BenchError("the server offers no resume; do not set VISAVIS_RESUME_TTL_S to 0")
        self._client.drop()
        await self._detach()
        await asyncio.sleep(self._generator.uniform(*APART_S))
        resumed = resume_client(
            self._url, handle, last_seq=self._last_seq, last_event_id=self._last_event_id
        )
        client, event = await self._stack.enter_async_context(resumed)
        self._note(event)
        self._attach(client)
        self._tally.resumed += 1

    async def _done(self, status: str) -> None:
        await self._until(lambda: self._status is not None)
        if self._status != status:
            raise BenchError(f"the response ended as {self._status}, not {status}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._while_connected(self._changed.wait())

    async def _while_connected(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Await it. Raises what ended the connection, should that come first."""
        task = asyncio.create_task(waiting)
        try:
            await asyncio.wait((task, *self._tasks), return_when=asyncio.FIRST_COMPLETED)
            for ended in self._tasks:
                if ended.done():
                    ended.result()
        finally:
            task.cancel()

    async def _report_playback(self, client: BenchClient) -> None:
        while True:
            await asyncio.sleep(PLAYBACK_EVERY_S)
            position_us = int(1e6 * self._playout.position_s(time.monotonic()))
            await client.send("playback.update", pts_us=position_us)

    async def _listen(self, client: BenchClient) -> None:
        async for arrival in client.arrivals():
            item = arrival.item
            if isinstance(item, Frame):
                self._on_frame(item, arrival.time_s)
            else:
                self._on_event(item)
            self._changed.set()
        raise BenchError("the server ended the session")

    def _on_frame(self, frame: Frame, now_s: float) -> None:
        header = frame.header
        if header.kind != Kind.MEDIA:
            return
        self._last_seq = header.seq
        self._tally.frames += 1
        self._playout.arrive(header.pts_us / 1e6, now_s)
        if is_speech(frame) and header.response == self._said:
            self._heard += frame.audio

    def _note(self, event: Event) -> bool:
        """Whether the event is new: what comes after a resume may have come before."""
        self._last_event_id = event["event_id"]
        if event["event_id"] in self._seen:
            return False
        self._seen.add(event["event_id"])
        return True

    def _on_event(self, event: Event) -> None:
        if not self._note(event):
            return
        if event["type"] == "output.cleared":
            self._playout.restart()
        elif event["type"] == "response.done" and event["response_index"] == self._said:
            self._status = event["status"]
