"""Several sessions on one model: one denoising step or one decoded frame at a time, by deadline.

Chunks of one shape are denoised together, each at its own noise level, as far as that was measured
to pay (`engine/costs.py`). Whatever is most urgent runs next, so that a first chunk or a barge-in
waits for a step, never for a chunk. One thread owns a scheduler and every session in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from visavis.engine.avatar_frame import AvatarFrame
from visavis.engine.costs import BATCHES, CostMeter
from visavis.engine.dit.sampler import ChunkAbandoned
from visavis.engine.pipeline import ChunkJob, FlashTalkPipeline
from visavis.engine.plan import FPS
from visavis.engine.timeline import Chunk

FRAME_S = 1 / FPS
# Waiting for less would only be waiting again.
TOLERANCE_S = 1e-4


class Denoiser(Protocol):
    """The part of a pipeline that batches: `FlashTalkPipeline.denoise`."""

    def denoise(self, jobs: list[ChunkJob]) -> None: ...


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """How a chunk came to its end.

    `frames` were given; `abandoned` before all were; `error`: what failed in it. `busy_s` is the
    time that the model worked for it, its share of batches included, and `wait_s` from its start to
    its first frame. `denoise_s` and `decode_s` are parts of `busy_s`, the rest is `on_frame`'s. On
    a GPU, a step returns before it is done, and what is waited for it belongs to decoding.
    """

    frames: int
    abandoned: bool
    busy_s: float
    wait_s: float | None
    error: Exception | None = None
    denoise_s: float = 0.0
    decode_s: float = 0.0


@dataclass(eq=False)
class _Work:
    chunk: Chunk
    deadline_s: float
    ahead_s: float | None
    urgent: bool
    on_frame: Callable[[AvatarFrame], None]
    on_end: Callable[[ChunkEnd], None]
    started_s: float
    frames: Iterator[AvatarFrame] | None = None
    count: int = 0
    busy_s: float = 0.0
    denoise_s: float = 0.0
    first_decode_s: float = 0.0
    later_decode_s: float = 0.0
    wait_s: float | None = None
    alone: bool = False

    def due_s(self) -> float:
        """When its next piece may be worked on: at once, unless it wants to be lazy."""
        if self.ahead_s is None or not self.chunk.job.denoised:
            return float("-inf")
        return self.deadline_s - self.ahead_s


class ChunkScheduler:
    """Chunks under way, of any number of sessions of one model.

    `caps` gives for each chunk length how many may be denoised together. With a `meter`, which is
    told what every piece of work took, they follow its costs. `warmed_sizes_only`: a batch of
    another size than `BATCHES` has neither compiled code nor a recording, and its sessions would
    wait for that to be made; they go in two batches.
    """

    def __init__(
        self,
        pipeline: FlashTalkPipeline | Denoiser,
        caps: Mapping[int, int] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.caps: dict[int, int] = dict(caps or {})
        self.meter: CostMeter | None = None
        self.warmed_sizes_only = False
        self.busy_s = 0.0
        self._pipeline = pipeline
        self._clock = clock
        self._work: list[_Work] = []

    def __len__(self) -> int:
        return len(self._work)

    def add(
        self,
        chunk: Chunk,
        *,
        deadline_s: float,
        on_frame: Callable[[AvatarFrame], None],
        on_end: Callable[[ChunkEnd], None],
        ahead_s: float | None = None,
        urgent: bool = False,
    ) -> None:
        """Work on `chunk` from the next `tick` on.

        `deadline_s`: when its first frame is wanted; each later one 40 ms after the one before.
        `ahead_s`: decode a frame so long before its time and no earlier, so that frames of a chunk
        that is cut off were never paid for; None: as soon as the model is free. `urgent`: is not
        slowed down by sharing a step with chunks that can wait.
        """
        self._work.append(
            _Work(chunk, deadline_s, ahead_s, urgent, on_frame, on_end, self._clock())
        )

    def wait_s(self) -> float | None:
        """Seconds until there is something to do, 0 for now; None while nothing is under way."""
        if not self._work:
            return None
        if any(work.chunk.obsolete() for work in self._work):
            return 0.0
        wait_s = min(work.due_s() for work in self._work) - self._clock()
        return wait_s if wait_s > TOLERANCE_S else 0.0

    def deadline_s(self) -> float:
        """The earliest deadline of what can be worked on now; infinity when nothing can."""
        return min((work.deadline_s for work in self._runnable()), default=float("inf"))

    def tick(self) -> bool:
        """One piece of work: a step of a batch, or one frame. False: there was nothing to do."""
        self.sweep()
        runnable = self._runnable()
        if not runnable:
            return False
        first = min(runnable, key=lambda work: work.deadline_s)
        if first.chunk.job.denoised:
            self._decode(first)
        else:
            self._denoise(self._batch(first, runnable))
        return True

    def sweep(self) -> None:
        """End what became obsolete."""
        for work in [work for work in self._work if work.chunk.obsolete()]:
            self._end(work, abandoned=True)

    def close(self) -> None:
        """Abandon everything."""
        for work in list(self._work):
            self._end(work, abandoned=True)

    def _runnable(self) -> list[_Work]:
        now_s = self._clock() + TOLERANCE_S
        return [work for work in self._work if work.due_s() <= now_s]

    def _batch(self, first: _Work, runnable: list[_Work]) -> list[_Work]:
        shape = first.chunk.job.shape
        cap = 1 if first.alone else self.caps.get(shape, 1)
        others = [
            work
            for work in runnable
            if work is not first
            and not work.chunk.job.denoised
            and not work.alone
            and work.chunk.job.shape == shape
            and (work.urgent or not first.urgent)
        ]
        others.sort(key=lambda work: work.deadline_s)
        size = min(cap, 1 + len(others))
        if self.warmed_sizes_only:
            size = max(batch for batch in BATCHES if batch <= max(1, size))
        return [first, *others[: size - 1]]

    def _denoise(self, batch: list[_Work]) -> None:
        start_s = self._clock()
        try:
            self._pipeline.denoise([work.chunk.job for work in batch])
        except Exception as error:
            if len(batch) == 1:
                self._end(batch[0], error=error)
            for work in batch:
                work.alone = True  # the one that fails must not take the others with it
            spent_s = self._clock() - start_s
        else:
            spent_s = self._clock() - start_s
            if self.meter is not None:
                self.meter.step(batch[0].chunk.job.shape, len(batch), spent_s)
        self.busy_s += spent_s
        for work in batch:
            work.busy_s += spent_s / len(batch)
            work.denoise_s += spent_s / len(batch)

    def _decode(self, work: _Work) -> None:
        if work.frames is None:
            work.frames = work.chunk.frames()
        start_s = self._clock()
        try:
            frame = next(work.frames, None)
            decode_s = self._clock() - start_s
            if work.count:
                work.later_decode_s += decode_s
            else:
                work.first_decode_s = decode_s
            if frame is not None:
                work.count += 1
                if work.wait_s is None:
                    work.wait_s = self._clock() - work.started_s
                work.on_frame(frame)
        except ChunkAbandoned:
            self._end(work, abandoned=True)
            return
        except Exception as error:
            self._end(work, error=error)
            return
        spent_s = self._clock() - start_s
        self.busy_s += spent_s
        work.busy_s += spent_s
        work.deadline_s += FRAME_S
        if frame is None or work.count == work.chunk.job.shown:
            self._end(work)

    def _end(self, work: _Work, *, abandoned: bool = False, error: Exception | None = None) -> None:
        self._work.remove(work)
        if self.meter is not None and not abandoned and error is None:
            self._remeasure(self.meter, work)
        work.on_end(
            ChunkEnd(
                work.count,
                abandoned,
                work.busy_s,
                work.wait_s,
                error,
                work.denoise_s,
                work.first_decode_s + work.later_decode_s,
            )
        )

    def _remeasure(self, meter: CostMeter, work: _Work) -> None:
        shape = work.chunk.job.shape
        meter.decoded(shape, work.count, work.first_decode_s, work.later_decode_s)
        meter.refresh()
        self.caps = meter.costs.caps
