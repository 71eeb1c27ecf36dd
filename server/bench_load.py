"""`visavis bench load`: speakers in real time against a server, and what they saw.

A first stage measures the latencies with `sessions` speakers; the stages after it add one speaker
at a time until an objective is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from visavis.server.bench_client import BenchError, first_avatar, socket_url
from visavis.server.bench_histogram import NEEDED, Histogram, Percentiles
from visavis.server.bench_memory import MemoryWatch
from visavis.server.bench_ramp import Stage, ramp, run_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to do. `most_sessions` bounds the ramp; the first stage's number for no ramp at all.

    `height` of the pictures in pixels, None for the server's own.
    """

    sessions: int = 1
    seconds: float = 200.0
    most_sessions: int = 16
    ramp_seconds: float = 18.0
    avatar: str | None = None
    video: str = "h264"
    height: int | None = None

    def __post_init__(self) -> None:
        for name in ("sessions", "seconds", "ramp_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: it must be above 0")
        if self.most_sessions < self.sessions:
            raise ValueError(
                f"most_sessions={self.most_sessions} is below sessions={self.sessions}: "
                "the ramp goes up; pass the same number for no ramp"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """All figures; None for what was not measured, with its reason by name in `reasons`."""

    plan: LoadPlan
    first_frame_s: Percentiles
    chunk_s: Percentiles
    interrupt_s: Percentiles
    skew_ms: Percentiles
    realtime_factor: float | None
    sessions_at_slo: int | None
    rss_slope_mb_per_min: float | None
    rss_mib: float | None
    reasons: dict[str, str]
    stages: tuple[Stage, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Why sessions of the first stage were lost; the ramp is meant to come to an end."""
        return tuple(self.stages[0].measured.failures)


async def run_load(
    url: str,
    plan: LoadPlan,
    *,
    pid: int | None,
    progress: Callable[[str], None] = lambda _: None,
) -> LoadReport:
    """Run the plan. Raises BenchError when no session could be opened at all."""
    target = socket_url(url)
    avatar = plan.avatar
    if avatar is None:
        avatar = await asyncio.to_thread(first_avatar, url)
    watch = MemoryWatch(pid)
    watching = asyncio.create_task(watch.run())
    stages = []
    try:
        progress(f"{plan.sessions} sessions for {plan.seconds:.0f} s")
        first = await run_stage(
            target,
            sessions=plan.sessions,
            seconds=plan.seconds,
            avatar=avatar,
            video=plan.video,
            height=plan.height,
        )
        watch.mark()
        stages.append(first)
        if len(first.measured.failures) == plan.sessions and not first.measured.frames:
            raise BenchError(f"no session could be opened: {first.measured.failures[0]}")
        if not first.missed:
            steps = ramp(
                target,
                first=plan.sessions + 1,
                most=plan.most_sessions,
                seconds=plan.ramp_seconds,
                avatar=avatar,
                video=plan.video,
                height=plan.height,
            )
            async for stage in steps:
                stages.append(stage)
                progress(f"{stage.sessions} sessions: {'; '.join(stage.missed) or 'fine'}")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return summarize(plan, tuple(stages), watch)


def summarize(plan: LoadPlan, stages: tuple[Stage, ...], watch: MemoryWatch) -> LoadReport:
    """The figures of the first stage, and where the ramp ended."""
    first = stages[0]
    percentiles, reasons = _latencies(first)
    factor, reason = _realtime_factor(first)
    if factor is None:
        reasons["realtime_factor"] = reason
    slope, reason = watch.slope()
    if slope is None:
        reasons["rss_slope_mb_per_min"] = reason
    at_slo, reason = _sessions_at_slo(plan, stages)
    if reason:
        reasons["sessions_at_slo"] = reason
    return LoadReport(
        plan=plan,
        **percentiles,
        realtime_factor=factor,
        sessions_at_slo=at_slo,
        rss_slope_mb_per_min=slope,
        rss_mib=watch.mib[-1] if watch.mib else None,
        reasons=reasons,
        stages=stages,
    )


def _latencies(stage: Stage) -> tuple[dict[str, Percentiles], dict[str, str]]:
    """(percentiles by key, the reasons of those that are not told)."""
    measured, late = stage.measured, stage.generator_late
    found = {
        "first_frame_s": measured.first_frame.percentiles(),
        "chunk_s": measured.chunk.percentiles(),
        "interrupt_s": measured.interrupt.percentiles(),
        "skew_ms": (
            _in_milliseconds(measured.skew).percentiles()
            if measured.pictures
            else Percentiles.withheld("no pictures came")
        ),
    }
    if late is not None:
        found = {name: Percentiles.withheld(late) for name in found}
    reasons = {
        f"{name}.{key}": reason
        for name, percentiles in found.items()
        for key, reason in percentiles.reasons.items()
    }
    return found, reasons


def _realtime_factor(stage: Stage) -> tuple[float | None, str]:
    """(the median, "") or (None, why it is not told)."""
    factors = stage.measured.realtime_factor
    if stage.generator_late is not None:
        return None, stage.generator_late
    if factors.count < NEEDED[50]:
        return None, (
            f"the server told its real-time factor {factors.count} times while the avatar spoke, "
            f"{NEEDED[50]} are needed"
        )
    return factors.quantile(50), ""


def _sessions_at_slo(plan: LoadPlan, stages: tuple[Stage, ...]) -> tuple[int | None, str]:
    """(sessions of the last good stage, what ended the ramp)."""
    last = stages[-1]
    if not last.missed:
        return last.sessions, "at least; more were not tried"
    late = last.generator_late
    why = f"{last.sessions} sessions: {'; '.join(last.missed)}" + (f"; but {late}" if late else "")
    if len(stages) > 1:
        return stages[-2].sessions, why
    if late is not None:
        return None, why
    if plan.sessions == 1:
        return 0, why
    return None, f"{plan.sessions} sessions are too many, fewer were not tried: {last.missed[0]}"


def _in_milliseconds(seconds: Histogram) -> Histogram:
    """The same values on another scale: µs are thousandths of milliseconds, too."""
    same = Histogram(1000)
    same.add(seconds)
    return same
