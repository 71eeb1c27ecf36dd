"""What each part of an evaluation is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress

from visavis.training.evaluation.bootstrap import Figures, Measured, Sample, measured
from visavis.training.evaluation.plan import EvaluationPlan
from visavis.training.evaluation.subjects import Subjects

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a part works on."""

    subjects: Subjects
    plan: EvaluationPlan
    out: Path
    progress: Progress

    def measured(
        self, samples: Sequence[Sample[T]], figures: Callable[[Sequence[T]], Figures]
    ) -> Measured:
        return measured(samples, figures, draws=self.plan.bootstraps)

    @property
    def seeds(self) -> range:
        """Names of the seeds; noise is drawn for each talk and seed anew, see `noise`."""
        return range(1, self.plan.seeds + 1)

    @staticmethod
    def noise(seed: int, number: int) -> int:
        """The seed of a session's noise: no two sessions have the same."""
        return 1000 * seed + number
