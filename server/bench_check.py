"""`visavis bench --check`: which of the objectives of docs/benchmarks.md the figures miss."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from visavis.server.bench_histogram import NEEDED
from visavis.server.bench_load import LoadPlan
from visavis.server.bench_ramp import (
    FIRST_FRAME_P95_S,
    INTERRUPT_P95_S,
    REALTIME_FACTOR_P95,
    SKEW_P95_S,
)
from visavis.server.bench_speaker import plan as talk_of

FIRST_FRAME_P50_S = 0.6


@dataclass(frozen=True, slots=True)
class Objective:
    """What one figure has to keep; `percentile` is None for a figure that is a single number."""

    figure: str
    percentile: str | None
    limit: float
    unit: str
    inclusive: bool = True

    @property
    def name(self) -> str:
        """As in the reasons of a report: `first_frame_s.p50`, `realtime_factor`."""
        return self.figure if self.percentile is None else f"{self.figure}.{self.percentile}"

    def missed(self, figures: Mapping[str, Any], reasons: Mapping[str, str]) -> str | None:
        """What is wrong, as a sentence that begins with the name; None when it is kept.

        Raises KeyError for figures that lack the key altogether.
        """
        found = figures[self.figure]
        value = found if self.percentile is None else found[self.percentile]
        if value is None:
            # What nobody measured was not kept: a check must not pass because it saw nothing.
            return f"{self.name} was not measured: {reasons.get(self.name, 'no reason is given')}"
        keeps: Callable[[float, float], bool] = operator.le if self.inclusive else operator.lt
        # A figure that is not a number keeps nothing.
        if keeps(value, self.limit):
            return None
        wanted = "at most" if self.inclusive else "below"
        return (
            f"{self.name} is {value:.3g}{self.unit}, {wanted} {self.limit:g}{self.unit} is wanted"
        )


OBJECTIVES = (
    Objective("first_frame_s", "p50", FIRST_FRAME_P50_S, " s"),
    Objective("first_frame_s", "p95", FIRST_FRAME_P95_S, " s", inclusive=False),
    Objective("interrupt_s", "p95", INTERRUPT_P95_S, " s"),
    Objective("skew_ms", "p95", 1000 * SKEW_P95_S, " ms"),
    Objective("realtime_factor", None, REALTIME_FACTOR_P95, "", inclusive=False),
)


def unmet_objectives(figures: Mapping[str, Any], reasons: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each objective that the figures of `bench_report.figures` do not keep.

    figures: as in the file of `--json`. reasons: why a figure is null, by name.
    """
    found = (objective.missed(figures, reasons) for objective in OBJECTIVES)
    return tuple(sentence for sentence in found if sentence is not None)


def require_checkable(plan: LoadPlan) -> None:
    """Raises ValueError for a plan whose figures could not be judged, before minutes are spent."""
    if plan.video == "none":
        raise ValueError("video='none': --check judges the skew of pictures; pass h264 or jpeg")
    interruptions = sum(
        said.cut_s is not None and said.start_s + said.cut_s < plan.seconds
        for number in range(plan.sessions)
        for said in talk_of(0.0, plan.seconds, number)
    )
    if interruptions < NEEDED[95]:
        raise ValueError(
            f"seconds={plan.seconds:g} has room for {interruptions} interruptions, --check needs "
            f"{NEEDED[95]} for a 95th percentile; leave --seconds out, or pass 60 or more"
        )
