"""What chunks cost on this machine, measured at warm-up and again by all later work.

Every figure is the best of a few runs: what is asked is what the machine can do, and load that
happens to be on it now is seen later, by those who count missed deadlines. A machine that is busy
at warm-up measures too little, so `CostMeter` goes on measuring while sessions are served.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.plan import CHUNK_LENGTHS, FPS, new_frames
from visavis.engine.timeline import Chunk

BATCHES = (1, 2, 4, 8)
# A batch delays all of its members until the last is done, so it has to pay for that.
WORTHWHILE_GAIN = 0.07
# No step may become so long that a barge-in is felt.
LONGEST_STEP_S = 0.15
RUNS = 3
# What counts is the best of so many of the last steps: soon told of a machine that became free,
# slowly of one that became busy, which missed deadlines tell at once.
WINDOW = 24
# Fewer may all have been disturbed.
FEWEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCosts:
    """Seconds of the engine's thread.

    `steps_s[chunk_frames][batch]`: one denoising step of so many chunks together. `prepare_s`:
    audio features and all else before the first step; `first_frame_s`, `frame_s`: decoding the
    first frame, and each later one, handing over included.
    """

    steps_s: Mapping[int, Mapping[int, float]]
    prepare_s: float
    first_frame_s: float
    frame_s: float

    def cap(self, chunk_frames: int) -> int:
        """How many chunks of that length to denoise together: as long as each doubling pays."""
        steps_s = self.steps_s[chunk_frames]
        best = 1
        for batch in sorted(steps_s):
            if batch == 1:
                continue
            gain = 1 - (steps_s[batch] / batch) / (steps_s[best] / best)
            if gain < WORTHWHILE_GAIN or steps_s[batch] > LONGEST_STEP_S:
                break
            best = batch
        return best

    @property
    def caps(self) -> dict[int, int]:
        """`cap` of every length."""
        return {length: self.cap(length) for length in self.steps_s}

    def start_s(self, chunk_frames: int, num_steps: int) -> float:
        """From the order to the first frame, on an engine that does nothing else."""
        return self.prepare_s + num_steps * self.steps_s[chunk_frames][1] + self.first_frame_s

    def chunk_s(self, chunk_frames: int, num_steps: int, *, sessions: int = 1) -> float:
        """All work for one chunk, when as many `sessions` as that make theirs at the same time."""
        batch = min(max(1, sessions), self.cap(chunk_frames))
        known = max(b for b in self.steps_s[chunk_frames] if b <= batch)
        step_s = self.steps_s[chunk_frames][known] / known
        frames = new_frames(chunk_frames)
        decode_s = self.first_frame_s + (frames - 1) * self.frame_s
        return self.prepare_s + num_steps * step_s + decode_s

    def realtime_factor(
        self, num_steps: int, *, sessions: int = 1, chunk_frames: int = CHUNK_LENGTHS[-1]
    ) -> float:
        """Work of one speaking session over the time that its chunks play."""
        plays_s = new_frames(chunk_frames) / FPS
        return self.chunk_s(chunk_frames, num_steps, sessions=sessions) / plays_s

    def capacity(
        self, num_steps: int, load: float, limit: int, *, chunk_frames: int = CHUNK_LENGTHS[-1]
    ) -> int:
        """Most sessions, up to `limit`, that speak at once within `load` of the engine's time,
        in chunks of that length."""
        for sessions in range(limit, 0, -1):
            factor = self.realtime_factor(num_steps, sessions=sessions, chunk_frames=chunk_frames)
            if sessions * factor <= load:
                return sessions
        return 0


class CostMeter:
    """Costs that follow what the work really takes; belongs to the engine's thread.

    `costs` is replaced as a whole, so that any thread may read it. What has not been seen of late,
    such as batches while one session speaks, is taken to have changed as much as what has been.
    """

    def __init__(self, measured: ChunkCosts) -> None:
        self.costs = measured
        self._at_first = measured
        self._steps: dict[tuple[int, int], deque[float]] = {
            (length, batch): deque(maxlen=WINDOW)
            for length, by_batch in measured.steps_s.items()
            for batch in by_batch
        }
        self._first_frames: deque[float] = deque(maxlen=WINDOW)
        self._frames: deque[float] = deque(maxlen=WINDOW)

    def step(self, chunk_frames: int, batch: int, seconds: float) -> None:
        """A step of `batch` chunks took so long; sizes that were not measured at first are left
        out, for nothing is asked about them."""
        window = self._steps.get((chunk_frames, batch))
        if window is not None:
            window.append(seconds)

    def decoded(self, chunk_frames: int, frames: int, first_s: float, later_s: float) -> None:
        """All `frames` of a chunk were decoded: the first took `first_s`, the others together
        `later_s`. As in `measure_costs`, the longest chunks count."""
        if chunk_frames == CHUNK_LENGTHS[-1] and frames == new_frames(chunk_frames):
            self._first_frames.append(first_s)
            self._frames.append(later_s / (frames - 1))

    def refresh(self) -> None:
        """Make `costs` what they are now."""
        first = self._at_first
        at_first = {key: first.steps_s[key[0]][key[1]] for key in self._steps}
        now = {key: min(seen) for key, seen in self._steps.items() if len(seen) >= FEWEST}
        if not now:
            return
        change = statistics.median(seconds / at_first[key] for key, seconds in now.items())
        steps_s = {
            length: {
                batch: now.get((length, batch), seconds * change)
                for batch, seconds in by_batch.items()
            }
            for length, by_batch in first.steps_s.items()
        }
        decoded = len(self._frames) >= FEWEST
        self.costs = ChunkCosts(
            steps_s=steps_s,
            prepare_s=first.prepare_s * change,
            first_frame_s=min(self._first_frames) if decoded else first.first_frame_s * change,
            frame_s=min(self._frames) if decoded else first.frame_s * change,
        )


def settled_clock(device: torch.device) -> Callable[[], float]:
    """A clock for measurements: on a GPU it first waits for all that was ordered.

    Elsewhere a call has done its work when it returns. Not for the hot path.
    """
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def measure_costs(
    pipeline: FlashTalkPipeline,
    begin: Callable[[int], Chunk],
    *,
    runs: int = RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> ChunkCosts:
    """Time steps, batches and decoding; `begin` prepares a chunk of a session of its own, and
    `clock` is that of `settled_clock`.

    Decoding is timed with the longest chunks alone: frames may come in batches.
    """
    steps_s: dict[int, dict[int, float]] = {}
    prepare_s, first_s, frame_s = [], [], []
    for length in CHUNK_LENGTHS:
        steps_s[length] = {}
        for batch in BATCHES:
            start = clock()
            chunks = [begin(length) for _ in range(batch)]
            prepare_s.append((clock() - start) / batch)
            steps_s[length][batch] = _best_step(pipeline, chunks, runs, clock)
            if batch > 1 and steps_s[length][batch] > LONGEST_STEP_S:
                break
    for _ in range(runs):
        chunk = begin(CHUNK_LENGTHS[-1])
        _best_step(pipeline, [chunk], runs, clock)
        frames = chunk.frames()
        start = clock()
        next(frames)
        first = clock()
        count = sum(1 for _ in frames)
        first_s.append(first - start)
        frame_s.append((clock() - first) / count)
    return ChunkCosts(
        steps_s=steps_s,
        prepare_s=min(prepare_s),
        first_frame_s=min(first_s),
        frame_s=min(frame_s),
    )


def _best_step(
    pipeline: FlashTalkPipeline, chunks: list[Chunk], runs: int, clock: Callable[[], float]
) -> float:
    """Best time of a step; the chunks are denoised to the end."""
    jobs, times = [chunk.job for chunk in chunks], []
    while not jobs[0].denoised:
        start = clock()
        pipeline.denoise(jobs)
        times.append(clock() - start)
    return min(times[-runs:])
