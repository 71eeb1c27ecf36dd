"""How many sessions this machine carries: one more at a time, until an objective is missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from visavis.server.bench_histogram import NEEDED, Histogram
from visavis.server.bench_speaker import TURN_S, Measurements, run_speaker

# The service-level objectives of docs/benchmarks.md; seconds, and seconds per second.
FIRST_FRAME_P95_S = 2.0
REALTIME_FACTOR_P95 = 0.9
INTERRUPT_P95_S = 0.2
SKEW_P95_S = 0.045
OBJECTIVES = (
    ("first frame", "first_frame", FIRST_FRAME_P95_S, " s"),
    ("real-time factor", "realtime_factor", REALTIME_FACTOR_P95, ""),
    ("interrupt", "interrupt", INTERRUPT_P95_S, " s"),
    ("skew", "skew", SKEW_P95_S, " s"),
)
# Players with a buffer of 200 ms stand still for less than this share of the speech.
STALLED_SHARE = 0.01
# A load generator that cannot keep its own schedule measures itself.
LATENESS_P95_S = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """`sessions` speakers for `seconds`, and the objectives that were missed, as sentences."""

    sessions: int
    seconds: float
    measured: Measurements
    missed: tuple[str, ...]

    @property
    def generator_late(self) -> str | None:
        """Why the stage says nothing of the server: what it measured is mostly the generator."""
        late_s = cautious_p95(self.measured.lateness)
        if late_s is None or late_s <= LATENESS_P95_S:
            return None
        return (
            f"the generator itself was {1000 * late_s:.0f} ms late (p95), "
            f"{1000 * LATENESS_P95_S:.0f} are allowed: run it on another machine"
        )


def cautious_p95(values: Histogram) -> float | None:
    """The 95th percentile; the maximum where there are too few for one, None where there are none.

    To break an objective with few values is a matter of one of them; to keep it, of all.
    """
    if not values.count:
        return None
    return values.quantile(95 if values.count >= NEEDED[95] else 100)


def missed_objectives(measured: Measurements) -> tuple[str, ...]:
    """What is wrong with a stage."""
    found = [f"a session was lost: {failure}" for failure in sorted(set(measured.failures))]
    for name, field, limit, unit in OBJECTIVES:
        value = cautious_p95(getattr(measured, field))
        if value is not None and value >= limit:
            found.append(f"{name} p95 {value:.3g}{unit}, below {limit:g} is wanted")
    if measured.stalled_share >= STALLED_SHARE:
        found.append(f"players stood still for {100 * measured.stalled_share:.1f} % of the speech")
    if measured.lowered:
        found.append(f"quality was lowered ({', '.join(sorted(measured.lowered))})")
    if measured.void_frames:
        found.append(f"{measured.void_frames} frames of a cancelled epoch came after its end")
    if not measured.first_frame.count:
        found.append("no utterance was long enough to be answered")
    elif not measured.speech_frames:
        found.append("not a frame of speech came")
    return tuple(found)


async def run_stage(
    url: str,
    *,
    sessions: int,
    seconds: float,
    avatar: str,
    video: str,
    height: int | None = None,
    seed: int = 0,
) -> Stage:
    """Let `sessions` speakers talk for `seconds`, spread over one turn of their talk."""
    measured = Measurements()
    until_s = time.monotonic() + seconds + TURN_S * (sessions - 1) / sessions
    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            speaker = run_speaker(
                url,
                measured,
                avatar=avatar,
                video=video,
                height=height,
                number=seed + number,
                delay_s=TURN_S * number / sessions,
                until_s=until_s,
            )
            group.create_task(speaker)
    return Stage(sessions, seconds, measured, missed_objectives(measured))


async def ramp(
    url: str,
    *,
    first: int,
    most: int,
    seconds: float,
    avatar: str,
    video: str,
    height: int | None = None,
) -> AsyncIterator[Stage]:
    """Stages of ever more sessions, up to the first that misses an objective.

    `first` and then one more at a time, from eight on a fourth more: a large machine's limit is
    told less exactly, but from below, and within minutes.
    """
    sessions = first
    while sessions <= most:
        stage = await run_stage(
            url,
            sessions=sessions,
            seconds=seconds,
            avatar=avatar,
            video=video,
            height=height,
            seed=1000 * sessions,
        )
        yield stage
        if stage.missed:
            return
        sessions += max(1, sessions // 4)
