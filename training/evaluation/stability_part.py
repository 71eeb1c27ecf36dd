"""The part of the evaluation that takes long: drift over a thousand chunks, and recovery."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.engine.long_run import HandOver, LongRun, LongSession
from visavis.training.evaluation.bootstrap import Measured, Sample, joined
from visavis.training.evaluation.drift import PREFIXES, Drift, drift, drift_figures
from visavis.training.evaluation.job import Job
from visavis.training.evaluation.plots import plot_stability
from visavis.training.evaluation.report import write_sheet
from visavis.training.evaluation.stability import recover, recovery_figures, residuals

# Short names of the ways of handing over, for captions.
_CAPTIONS: Final[dict[HandOver, str]] = {
    "exact": "as deployed",
    "reencoded": "encoded again",
    "corrected": "colours corrected",
}


def stability(job: Job) -> Measured:
    """DRIFT for every way of handing over, and RECOVER as deployed."""
    subjects, plan = job.subjects, job.plan
    run = LongRun(
        subjects.engine.pipeline, num_steps=plan.num_steps, chunk_frames=plan.chunk_frames
    )

    def session(number: int, seed: int, way: HandOver) -> LongSession:
        name = subjects.names[number % len(subjects.names)]
        clip = subjects.speaking[number % len(subjects.speaking)]
        noise = job.noise(seed, number)
        return run.open(subjects.avatar(name), clip.pcm, noise, hand_over=way)

    ways: list[tuple[HandOver, int]] = [("exact", plan.drift_sessions)]
    if plan.reencoded_sessions:
        ways += [("reencoded", plan.reencoded_sessions), ("corrected", plan.reencoded_sessions)]
    who = [(way, number, 1 + number % plan.seeds) for way, count in ways for number in range(count)]
    task = job.progress.add_task("drift", total=plan.drift_checkpoints[-1])
    found = drift(
        run,
        [session(number, seed, way) for way, number, seed in who],
        plan.drift_checkpoints,
        subjects.landmarker,
        lambda chunk: job.progress.update(task, completed=chunk),
    )
    drifts: dict[HandOver, list[Sample[Drift]]] = {way: [] for way, _ in ways}
    for (way, number, seed), one in zip(who, found, strict=True):
        drifts[way].append(Sample(subjects.names[number % len(subjects.names)], seed, one))
    recoveries = []
    task = job.progress.add_task("recovery", total=plan.recovery_sessions * plan.seeds)
    for number in range(10, 10 + plan.recovery_sessions):
        for seed in job.seeds:
            recovery = recover(run, partial(session, number, seed, "exact"))
            recoveries.append(Sample(str(number), seed, recovery))
            job.progress.advance(task)
    parts = [job.measured(recoveries, recovery_figures)]
    for way, samples in drifts.items():
        parts.append(job.measured(samples, partial(drift_figures, prefix=PREFIXES[way])))
    measured = joined(parts)
    _write_film({way: samples[0].value for way, samples in drifts.items()}, job.out)
    plot_stability(
        measured.figures,
        measured.intervals,
        job.out / "stability.png",
        kinds=residuals([sample.value for sample in recoveries]),
    )
    return measured


def _write_film(drifts: Mapping[HandOver, Drift], out: Path) -> None:
    """One frame of one session for each way and checkpoint."""
    rows: list[NDArray[np.uint8]] = [np.stack(list(one.film.values())) for one in drifts.values()]
    captions = [
        [f"{_CAPTIONS[way]}, chunk {chunk}" for chunk in one.film] for way, one in drifts.items()
    ]
    write_sheet(rows, out / "drift-film.png", captions=captions)
