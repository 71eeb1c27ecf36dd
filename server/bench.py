"""What one machine can do: seconds per stage of a chunk, one session at a time."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from visavis.engine.plan import CHUNK_LENGTHS, ENGINE_RATE, FPS, new_frames
from visavis.server.encoder import H264Encoder
from visavis.server.engine_load import EngineLoad, expected_slowness
from visavis.server.picture_costs import measure_engine_pictures

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import AvatarEngine
    from visavis.engine.session import AvatarSession
    from visavis.engine.weight_memory import WeightMemory

WARM_UP = 3
STAGES = ("audio", "dit", "decode", "hand-over", "encode")
OTHER, WHOLE = "other", "whole chunk"
FIRST_CHUNK = 17


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile, in seconds."""

    p50_s: float
    p95_s: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Raises ValueError for an empty list."""
        if not seconds:
            raise ValueError("seconds is empty: nothing was measured")
        return cls(float(np.median(seconds)), float(np.percentile(seconds, 95)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReport:
    """Chunks of one length; `stages` has STAGES, what is left over, and the whole.

    `realtime_factor` is the whole's median over the time that the new frames play.
    """

    chunk_frames: int
    plays_s: float
    stages: dict[str, Spread]
    realtime_factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """All that `visavis bench engine` prints.

    `first_frame` is the compute from the first chunk's audio to its first encoded frame;
    `sessions` what `visavis serve` would admit on this machine, None when that was not asked.
    """

    model: str
    device: str
    dtype: str
    num_steps: int
    load_s: float
    chunks: tuple[ChunkReport, ...]
    first_frame: Spread
    peak_rss_mib: float
    sessions: int | None = None

    @property
    def chunk_realtime_factor(self) -> float:
        """That of the longest chunk: its seconds over 1.12 s."""
        return self.chunks[-1].realtime_factor


class StageClock:
    """Adds up the seconds that each stage takes, by standing between the pipeline and its parts."""

    def __init__(self, engine: AvatarEngine) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._finish: Callable[[], None] = _synchronizer(engine)
        # Only the bench looks inside; the pipeline itself is not slowed down by clocks.
        pipeline: Any = engine._pipeline
        pipeline.front_end = _Timed(pipeline.front_end, {"features": "audio"}, self)
        pipeline.model = _Timed(pipeline.model, {"prepare_audio": "audio", "velocity": "dit"}, self)
        names = {"decode": "decode", "motion_latents": "hand-over"}
        pipeline.codec = _Timed(pipeline.codec, names, self)

    def call(self, stage: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The function's result; its time counts for `stage`, also that of a generator's steps."""
        start = time.perf_counter()
        result = function(*args, **kwargs)
        self._finish()
        self.seconds[stage] += time.perf_counter() - start
        return self._steps(stage, result) if isinstance(result, Iterator) else result

    def _steps(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self.call(stage, next, items)
            except StopIteration:
                return

    def take(self) -> dict[str, float]:
        """What was counted since the last time."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


class _Timed:
    """A part of the pipeline, some of whose methods are timed."""

    def __init__(self, part: object, names: dict[str, str], clock: StageClock) -> None:
        self._part, self._names, self._clock = part, names, clock

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        stage = self._names.get(name)
        if stage is None:
            return value

        def timed(*args: Any, **kwargs: Any) -> Any:
            return self._clock.call(stage, value, *args, **kwargs)

        return timed


def _synchronizer(engine: AvatarEngine) -> Callable[[], None]:
    if engine.device.type != "cuda":
        return lambda: None
    import torch

    return torch.cuda.synchronize


def measure(
    model: str,
    weights: Path | None,
    device: str,
    num_threads: int | None,
    chunks: int,
    memory: WeightMemory | None = None,
) -> EngineReport:
    """Time `chunks` chunks of each length, after warming up.

    Raises ValueError for fewer than two chunks, and what `AvatarEngine.load` raises.
    """
    if chunks < 2:
        raise ValueError(f"chunks={chunks}: at least 2 are needed to say anything")
    from visavis.engine.avatar_engine import AvatarEngine

    start = time.perf_counter()
    engine = AvatarEngine.load(
        model, weights=weights, device=device, num_threads=num_threads, memory=memory
    )
    load_s = time.perf_counter() - start
    return measure_engine(engine, chunks, load_s=load_s, sessions=admitted(engine))


def admitted(engine: AvatarEngine) -> int:
    """How many sessions a server would admit with this engine, after the same warm-up."""
    num_steps = engine.num_steps
    engine.warm_up()
    pictures = measure_engine_pictures(engine, max(engine.frame_size))
    load = EngineLoad(
        lambda: engine.costs,
        num_steps=engine.num_steps,
        pictures=pictures,
        slowness=expected_slowness(engine.device.type),
    )
    # On a slow machine a server makes fewer steps; what is timed here stays what was asked for.
    engine.num_steps = num_steps
    return load.capacity


def measure_engine(
    engine: AvatarEngine, chunks: int, *, load_s: float = 0.0, sessions: int | None = None
) -> EngineReport:
    """The same for an engine that is loaded already; afterwards it keeps its stage clocks."""
    from visavis.engine.schematic import schematic_portrait

    avatar = engine.prepare_avatar(schematic_portrait(engine.frame_size[0]))
    clock = StageClock(engine)
    reports = []
    for chunk_frames in CHUNK_LENGTHS:
        session = engine.open_session(avatar)
        reports.append(_time_chunks(session, engine.frame_size, chunk_frames, chunks, clock))
    firsts = []
    for _ in range(chunks):
        session = engine.open_session(avatar)
        firsts.append(_time_first_frame(session, H264Encoder(engine.frame_size, fps=FPS)))
    return EngineReport(
        model=engine.model,
        device=str(engine.device),
        dtype=str(engine.dtype).removeprefix("torch."),
        num_steps=engine.num_steps,
        load_s=load_s,
        chunks=tuple(reports),
        first_frame=Spread.of(firsts),
        peak_rss_mib=peak_rss_mib(),
        sessions=sessions,
    )


def _time_chunks(
    session: AvatarSession,
    frame_size: tuple[int, int],
    chunk_frames: int,
    chunks: int,
    clock: StageClock,
) -> ChunkReport:
    encoder = H264Encoder(frame_size, fps=FPS)
    counted: list[dict[str, float]] = []
    rounds = track(
        range(WARM_UP + chunks),
        description=f"{chunk_frames}-frame chunks",
        console=Console(stderr=True),
        transient=True,
    )
    for number in rounds:
        session.push_audio(babble(new_frames(chunk_frames) * ENGINE_RATE // FPS, seed=number))
        clock.take()
        start = time.perf_counter()
        for frame in session.generate(chunk_frames=chunk_frames):
            clock.call("encode", encoder.encode, frame.pixels, keyframe=False)
        whole_s = time.perf_counter() - start
        stages = clock.take()
        if number >= WARM_UP:
            other_s = max(0.0, whole_s - sum(stages.values()))
            counted.append({**stages, OTHER: other_s, WHOLE: whole_s})
    spreads = {
        name: Spread.of([seconds.get(name, 0.0) for seconds in counted])
        for name in (*STAGES, OTHER, WHOLE)
    }
    plays_s = new_frames(chunk_frames) / FPS
    return ChunkReport(
        chunk_frames=chunk_frames,
        plays_s=plays_s,
        stages=spreads,
        realtime_factor=spreads[WHOLE].p50_s / plays_s,
    )


def _time_first_frame(session: AvatarSession, encoder: H264Encoder) -> float:
    session.push_audio(babble(new_frames(FIRST_CHUNK) * ENGINE_RATE // FPS))
    start = time.perf_counter()
    frame = next(session.generate(chunk_frames=FIRST_CHUNK))
    encoder.encode(frame.pixels, keyframe=True)
    return time.perf_counter() - start


def babble(
    samples: int, rate: int = ENGINE_RATE, seed: int = 0
) -> np.ndarray[Any, np.dtype[np.int16]]:
    """int16 noise that swells four times a second, as syllables do; no two seeds sound alike."""
    time_s = np.arange(samples) / rate
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s)
    noise = np.random.default_rng(seed).normal(0, 4000, samples)
    return np.clip(envelope * noise, -32768, 32767).astype(np.int16)


def peak_rss_mib() -> float:
    """The most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def print_table(report: EngineReport) -> None:
    """The report on stdout, and what it means."""
    title = (
        f"{report.model}, {report.device}, {report.dtype}, {report.num_steps} steps: "
        "milliseconds a chunk, median (p95)"
    )
    table = Table(title=title)
    table.add_column("")
    for chunk in report.chunks:
        table.add_column(f"{chunk.chunk_frames} frames", justify="right")
    for stage in (*STAGES, OTHER, WHOLE):
        spreads = [chunk.stages[stage] for chunk in report.chunks]
        cells = [f"{1000 * s.p50_s:.1f} ({1000 * s.p95_s:.1f})" for s in spreads]
        table.add_row(stage, *cells, end_section=stage == OTHER)
    table.add_row("plays", *(f"{1000 * chunk.plays_s:.0f}" for chunk in report.chunks))
    table.add_row("real-time factor", *(f"{chunk.realtime_factor:.2f}" for chunk in report.chunks))
    console = Console()
    console.print(table)
    first = report.first_frame
    factor = report.chunk_realtime_factor
    lines = [
        f"chunk_realtime_factor  {factor:.3f}",
        f"first frame            {1000 * first.p50_s:.0f} ms (p95 {1000 * first.p95_s:.0f})",
        f"peak memory            {report.peak_rss_mib:.0f} MiB",
    ]
    if factor >= 1:
        lines.append("This machine is too slow for real time with these settings.")
    elif report.sessions is not None:
        lines.append(f"sessions at a time     {report.sessions} (as visavis serve admits)")
    console.print("\n".join(lines), highlight=False)


def write_json(report: EngineReport, path: Path) -> None:
    """The report, with `chunk_realtime_factor` of the longest chunk."""
    figures = {"chunk_realtime_factor": report.chunk_realtime_factor, **asdict(report)}
    path.write_text(json.dumps(figures, indent=1) + "\n")
