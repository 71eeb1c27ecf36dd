"""`visavis bench soak --mixed`: visitors who talk, interrupt, rest, lose connections, and go."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from visavis.server.bench_client import BenchError, first_avatar, socket_url
from visavis.server.bench_memory import MB_PER_MIB, MemoryWatch
from visavis.server.bench_stop import runs_to_its_end
from visavis.server.bench_visitor import REST_S, Tally, Visitor, visit_plan

STALL_S = 60.0
# What memory may grow by over a whole run, by its slope, and count as flat.
FLAT_MIB = 32.0
# A server that refuses is asked again so late.
AFTER_FAILURE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """`visitors` at a time for `minutes`; who rests, rests between `rest_s` seconds."""

    minutes: float
    visitors: int = 2
    avatar: str | None = None
    video: str = "h264"
    rest_s: tuple[float, float] = REST_S

    def __post_init__(self) -> None:
        for name in ("minutes", "visitors"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedReport:
    """What came of it. `rss_slope_mb_per_min` is None for what `slope_reason` says; `stopped`: by
    Ctrl-C, before its time."""

    wall_s: float
    tally: Tally
    rss_mib: float | None
    rss_slope_mb_per_min: float | None
    slope_reason: str
    stopped: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, as sentences; nothing when all is well."""
        tally, found = self.tally, []
        if self.stopped:
            found.append(f"stopped by hand after {self.wall_s:.0f} s")
        if tally.num_failures:
            first = "; ".join(sorted(set(tally.failures)))
            found.append(f"{tally.num_failures} visits came to a bad end: {first}")
        if tally.damaged:
            found.append(f"{tally.damaged} utterances came back other than they were said")
        if not tally.completed:
            found.append("no utterance was completed")
        slope = self.rss_slope_mb_per_min
        if slope is not None:
            grown_mib = slope * self.wall_s / 60 / MB_PER_MIB
            if grown_mib > FLAT_MIB:
                found.append(
                    f"memory grows by {slope:.2f} MB/min, {grown_mib:.0f} MiB over the run; "
                    f"{FLAT_MIB:.0f} MiB are allowed"
                )
        return tuple(found)


async def run_mixed(
    url: str,
    plan: MixedPlan,
    *,
    pid: int | None,
    progress: Callable[[str], None] = lambda _: None,
) -> MixedReport:
    """Let visitors come and go, until the time is up or Ctrl-C.

    Raises BenchError when the server is not there at first.
    """
    target, avatar = socket_url(url), plan.avatar
    if avatar is None:
        avatar = await asyncio.to_thread(first_avatar, url)
    tally, watch = Tally(), MemoryWatch(pid)
    watching = asyncio.create_task(watch.run())
    start_s = time.monotonic()
    until_s = start_s + 60 * plan.minutes

    async def visit() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_tell(tally, watch, until_s, progress))
            for number in range(plan.visitors):
                visits = _visits(target, avatar, plan, number, tally, until_s)
                group.create_task(visits)

    try:
        finished = await runs_to_its_end(visit())
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    slope, reason = watch.slope()
    return MixedReport(
        wall_s=time.monotonic() - start_s,
        tally=tally,
        rss_mib=watch.mib[-1] if watch.mib else None,
        rss_slope_mb_per_min=slope,
        slope_reason=reason,
        stopped=not finished,
    )


async def _tell(
    tally: Tally, watch: MemoryWatch, until_s: float, progress: Callable[[str], None]
) -> None:
    while (left_s := until_s - time.monotonic()) > 0:
        await asyncio.sleep(min(60.0, left_s))
        memory = f", {watch.mib[-1]:.0f} MiB" if watch.mib else ""
        progress(f"{tally.visits} visits, {tally.num_failures} failures{memory}")


async def _visits(
    url: str, avatar: str, plan: MixedPlan, number: int, tally: Tally, until_s: float
) -> None:
    generator = random.Random(number)
    while time.monotonic() < until_s:
        acts = visit_plan(generator)
        visitor = Visitor(url, tally, generator, rest_s=plan.rest_s)
        try:
            async with visitor.session(avatar=avatar, video=plan.video):
                for act in acts:
                    if time.monotonic() >= until_s:
                        break
                    async with asyncio.timeout(STALL_S):
                        await visitor.do(act)
            tally.visits += 1
        except TimeoutError:
            tally.fail(f"{visitor.act} was not over after {STALL_S:g} s")
            await asyncio.sleep(AFTER_FAILURE_S)
        except (BenchError, OSError) as error:
            tally.fail(f"{visitor.act}: {error}")
            await asyncio.sleep(AFTER_FAILURE_S)


def print_mixed(report: MixedReport) -> None:
    """The report on stdout."""
    tally, console = report.tally, Console()
    slope = report.rss_slope_mb_per_min
    memory = "not told: " + report.slope_reason if slope is None else f"{slope:.2f} MB/min"
    for line in (
        f"{tally.visits} visits in {report.wall_s:.0f} s: {tally.completed} utterances completed, "
        f"{tally.interrupted} interrupted, {tally.resumed} connections lost and resumed, "
        f"{tally.rested_s:.0f} s of rest; {tally.frames} frames",
        f"memory slope: {memory}",
    ):
        console.print(line, highlight=False)
    for problem in report.problems:
        console.print(f"[red]problem:[/] {problem}", highlight=False)


def write_mixed_json(report: MixedReport, path: Path) -> None:
    """The report as JSON."""
    figures = {**asdict(report), "problems": report.problems}
    path.write_text(json.dumps(figures, indent=1) + "\n")
