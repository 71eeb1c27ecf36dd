"""One speaker of the load: talks by the clock, is interrupted, and measures what comes back.

Everything is timed from when it *should* have been sent. A server that is slow to read cannot delay
the next word, and if this program is itself late, the lateness counts against the figure and is
reported, so that no coordinated omission can make a slow server look fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from visavis.server.bench import babble
from visavis.server.bench_chunks import Chunk, ChunkTracker, Playout, SkewMeter
from visavis.server.bench_client import (
    FRAME_S,
    Arrival,
    BenchClient,
    BenchError,
    Event,
    is_speech,
    open_client,
)
from visavis.server.bench_histogram import Histogram
from visavis.server.protocol import Frame, Kind

RATE = 16_000
PIECE = round(RATE * FRAME_S)
# Most turns of a conversation are short, and cut short; now and then somebody tells a story.
UTTERANCE_S = (0.9, 1.8)
STORY_S = (3.0, 5.0)
STORIES = 0.15
PAUSE_S = (0.2, 0.5)
# Of all utterances so many are interrupted, somewhere in their second half.
INTERRUPTED = 0.9
# From one turn to the next, on average.
TURN_S = 1.7
PLAYBACK_EVERY_S = 0.4


@dataclass(slots=True)
class Measurements:
    """What the speakers of one stage measured, together. Histograms are in seconds, but that of
    `realtime_factor`, which the server tells of each session's speech every few seconds."""

    first_frame: Histogram = field(default_factory=Histogram)
    chunk: Histogram = field(default_factory=Histogram)
    interrupt: Histogram = field(default_factory=Histogram)
    skew: Histogram = field(default_factory=Histogram)
    realtime_factor: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    utterances: int = 0
    completed: int = 0
    unanswered: int = 0
    speech_frames: int = 0
    frames: int = 0
    void_frames: int = 0
    lowered: set[str] = field(default_factory=set)
    underruns: int = 0
    stalled_s: float = 0.0
    bytes_received: int = 0
    pictures: bool = False
    size: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def stalled_share(self) -> float:
        """Seconds that players stood still over seconds of speech shown."""
        shown_s = self.speech_frames * FRAME_S
        return self.stalled_s / shown_s if shown_s else 0.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is to be said: begins at `start_s`, lasts `length_s`, is cut off after `cut_s`."""

    start_s: float
    length_s: float
    cut_s: float | None


def plan(start_s: float, until_s: float, seed: int) -> Iterator[Utterance]:
    """A talk of utterances and pauses; the same for the same seed."""
    generator = random.Random(seed)
    while start_s < until_s:
        longest = STORY_S if generator.random() < STORIES else UTTERANCE_S
        length_s = round(generator.uniform(*longest) / FRAME_S) * FRAME_S
        cut_s = None
        if generator.random() < INTERRUPTED:
            cut_s = generator.uniform(length_s / 2, length_s)
        yield Utterance(start_s, length_s, cut_s)
        start_s += (length_s if cut_s is None else cut_s) + generator.uniform(*PAUSE_S)


@dataclass(slots=True)
class _Said:
    """An utterance on its way, and what came of it."""

    utterance: Utterance
    first_due_s: float
    chunks: ChunkTracker = field(default_factory=ChunkTracker)
    skew: SkewMeter = field(default_factory=lambda: SkewMeter(RATE))
    frames: int = 0
    cancelled_s: float | None = None


class Speaker:
    """Talks through one session from `start_s` to `until_s` on the monotonic clock."""

    def __init__(
        self, client: BenchClient, measured: Measurements, *, video: str, number: int
    ) -> None:
        self._client = client
        self._measured = measured
        self._expects_pictures = video != "none"
        self._number = number
        self._said: dict[int, _Said] = {}
        self._playout = Playout()
        self._epoch = 0
        self._cancel_due: list[float] = []
        self._spoken_since = False

    async def run(self, start_s: float, until_s: float) -> None:
        """Talk and listen. Raises BenchError when the session is lost."""
        tasks = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._report_playback()),
            asyncio.create_task(self._speak(start_s, until_s)),
        ]
        try:
            async with asyncio.timeout(until_s - time.monotonic()):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._count_unanswered(time.monotonic())

    async def _speak(self, start_s: float, until_s: float) -> None:
        pcm = babble(int(max(STORY_S) * RATE), RATE, seed=self._number)
        data = pcm.astype("<i2").tobytes()
        talk = plan(start_s, until_s, self._number)
        for response, utterance in enumerate(talk, start=1):
            said = _Said(utterance, utterance.start_s + FRAME_S)
            self._said[response] = said
            end_s = utterance.length_s if utterance.cut_s is None else utterance.cut_s
            pieces = max(1, int(end_s / FRAME_S))
            for piece in range(pieces):
                # A piece goes out when its 40 ms have been spoken.
                await self._wait(utterance.start_s + (piece + 1) * FRAME_S)
                self._measured.utterances += piece == 0
                await self._client.send_audio(data[2 * PIECE * piece : 2 * PIECE * (piece + 1)])
            if utterance.cut_s is None:
                await self._client.send("input_audio_buffer.commit")
            else:
                due_s = utterance.start_s + max(utterance.cut_s, FRAME_S)
                await self._wait(due_s)
                said.cancelled_s = due_s
                self._cancel_due.append(due_s)
                await self._client.send("response.cancel")

    async def _wait(self, due_s: float) -> None:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        self._measured.lateness.record(max(0.0, time.monotonic() - due_s))

    async def _report_playback(self) -> None:
        while True:
            await asyncio.sleep(PLAYBACK_EVERY_S)
            position_us = int(1e6 * self._playout.position_s(time.monotonic()))
            await self._client.send("playback.update", pts_us=position_us)

    async def _listen(self) -> None:
        async for arrival in self._client.arrivals():
            self._measured.bytes_received += arrival.size
            item = arrival.item
            if isinstance(item, Frame):
                if item.header.kind == Kind.MEDIA:
                    self._on_frame(item, arrival)
            elif item["type"] == "output.cleared":
                self._on_cleared(int(item["epoch"]), arrival.time_s)
            elif item["type"] == "session.stats":
                self._on_stats(item)
            elif item["type"] == "response.done":
                self._on_done(int(item["response_index"]), str(item["status"]))
        raise BenchError("the server ended the session")

    def _on_frame(self, frame: Frame, arrival: Arrival) -> None:
        measured, header = self._measured, frame.header
        measured.frames += 1
        if header.epoch < self._epoch:
            measured.void_frames += 1
            return
        said = self._said.get(header.response)
        if said is None or not is_speech(frame):
            self._playout.arrive(header.pts_us / 1e6, arrival.time_s)
            return
        measured.speech_frames += 1
        self._spoken_since = True
        if not said.frames:
            measured.first_frame.record(max(0.0, arrival.time_s - said.first_due_s))
            self._playout.restart()
        late_s = self._playout.arrive(header.pts_us / 1e6, arrival.time_s)
        measured.underruns += late_s > 0
        measured.stalled_s += late_s
        utterance = said.utterance
        due_s = utterance.start_s + min((said.frames + 1) * FRAME_S, utterance.length_s)
        said.frames += 1
        self._note_chunk(said.chunks.add(due_s, arrival.time_s))
        if self._expects_pictures:
            measured.pictures = measured.pictures or bool(frame.video)
            skew_s = said.skew.add(len(frame.audio) // 2, has_picture=bool(frame.video))
            measured.skew.record(skew_s)

    def _note_chunk(self, chunk: Chunk | None) -> None:
        if chunk is not None:
            self._measured.chunk.record(chunk.seconds)

    def _on_stats(self, stats: Event) -> None:
        self._measured.lowered.update(stats.get("degraded") or ())
        # What is told again without speech in between was not measured again.
        if self._spoken_since and stats["rtf"] is not None:
            self._measured.realtime_factor.record(float(stats["rtf"]))
        self._spoken_since = False

    def _on_cleared(self, epoch: int, now_s: float) -> None:
        self._epoch = epoch
        self._playout.restart()
        for due_s in self._cancel_due:
            self._measured.interrupt.record(max(0.0, now_s - due_s))
        self._cancel_due.clear()

    def _on_done(self, response: int, status: str) -> None:
        said = self._said.pop(response, None)
        if said is None:
            return
        if said.cancelled_s is None:
            # The last chunk of a cancelled utterance was cut off; of a complete one it is whole.
            self._note_chunk(said.chunks.finish())
        elif not said.frames:
            self._missed(said, said.cancelled_s)
        self._measured.completed += status == "completed"

    def _count_unanswered(self, now_s: float) -> None:
        """What never came counts with the time that it was waited for, and is not left out."""
        for said in self._said.values():
            if not said.frames:
                self._missed(said, now_s if said.cancelled_s is None else said.cancelled_s)
        for due_s in self._cancel_due:
            self._measured.unanswered += 1
            self._measured.interrupt.record(max(0.0, now_s - due_s))

    def _missed(self, said: _Said, until_s: float) -> None:
        # An utterance that has only just begun says nothing yet.
        if until_s - said.first_due_s > UTTERANCE_S[0] / 2:
            self._measured.unanswered += 1
            self._measured.first_frame.record(until_s - said.first_due_s)


async def run_speaker(
    url: str,
    measured: Measurements,
    *,
    avatar: str,
    video: str,
    height: int | None,
    number: int,
    delay_s: float,
    until_s: float,
) -> None:
    """A whole session; what fails is noted, for the others go on."""
    try:
        await asyncio.sleep(delay_s)
        async with open_client(url, avatar=avatar, rate=RATE, video=video, height=height) as client:
            measured.size = client.size
            speaker = Speaker(client, measured, video=video, number=number)
            await speaker.run(time.monotonic() + PAUSE_S[0], until_s)
            with contextlib.suppress(BenchError):
                await client.send("session.close")
    except (BenchError, OSError, TimeoutError) as error:
        measured.failures.append(str(error) or type(error).__name__)
