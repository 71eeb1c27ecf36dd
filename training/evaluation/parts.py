"""The parts of an evaluation: each makes its sheets and gives its figures with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from visavis.engine.codec.motion import MotionCodec
from visavis.engine.long_run import HandOver, LongRun, LongSession
from visavis.training.codec_data import random_controls
from visavis.training.evaluation.against_truth import compare, true_motion
from visavis.training.evaluation.bootstrap import Figures, Measured, Sample, joined, measured
from visavis.training.evaluation.drift import Drift, drift, drift_figures
from visavis.training.evaluation.photographs import likeness, likeness_figures
from visavis.training.evaluation.plan import EvaluationPlan, Part
from visavis.training.evaluation.plots import plot_stability
from visavis.training.evaluation.realtime import chunk_realtime_factors
from visavis.training.evaluation.recordings import plot_recordings, recording_figures, respond
from visavis.training.evaluation.report import write_sheet
from visavis.training.evaluation.round_trip import RoundTrip, round_trip
from visavis.training.evaluation.stability import Recovery, recover, recovery_figures
from visavis.training.evaluation.subjects import Subjects
from visavis.training.evaluation.talk_figures import talk_figures
from visavis.training.evaluation.talking import Endurance, as_int16, endure, play, speak
from visavis.training.speech.phonemes import SAMPLE_RATE

T = TypeVar("T")

_FILM: Final = slice(20, 84, 8)
_FILMED_TALKS: Final = 8
# What precedes the names of the figures of sessions that hand over in this way.
PREFIXES: Final[dict[HandOver, str]] = {
    "exact": "",
    "reencoded": "reencoded_",
    "corrected": "corrected_",
}


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


def speed(job: Job) -> Measured:
    """How long a chunk takes here."""
    avatar = job.subjects.avatar(job.subjects.names[0])
    factors = chunk_realtime_factors(job.subjects.engine, avatar, num_steps=job.plan.num_steps)
    samples = [Sample(str(number), 1, factor) for number, factor in enumerate(factors)]
    found = job.measured(
        samples, lambda values: {"chunk_realtime_factor": float(np.median(values))}
    )
    return Measured(figures=found.figures, intervals=found.intervals)


def autoencoder(job: Job) -> Measured:
    """Encode and draw held-out puppets; there is no noise in it, so no seeds."""
    subjects, plan = job.subjects, job.plan
    codec = subjects.engine.pipeline.codec
    if not isinstance(codec, MotionCodec):
        raise ValueError("codec: the autoencoder's figures need the MotionCodec")
    names = subjects.names[: plan.round_trip_portraits]
    task = job.progress.add_task("autoencoder", total=len(names))
    rng = np.random.default_rng(1)
    trips = []
    for name in names:
        controls = random_controls(rng, plan.round_trip_frames)
        trips.append(round_trip(codec, subjects.puppet(name), controls, subjects.landmarker))
        job.progress.advance(task)
    pairs = [frames[:8] for trip in trips[:6] for frames in (trip.truth, trip.rebuilt)]
    write_sheet(pairs, job.out / "autoencoder.png")
    found = job.measured([Sample(trip.name, 1, trip) for trip in trips], _mean_scalars)
    return Measured(figures=found.figures, intervals=found.intervals)


def _mean_scalars(trips: Sequence[RoundTrip]) -> dict[str, float]:
    names = dict.fromkeys(name for trip in trips for name in trip.scalars)
    return {
        name: float(np.mean([trip.scalars[name] for trip in trips if name in trip.scalars]))
        for name in names
    }


def talking(job: Job) -> Measured:
    """Held-out portraits speak held-out clips, beside the clips' own motion."""
    subjects, plan = job.subjects, job.plan
    pairs = subjects.pairs(plan.talks)
    task = job.progress.add_task("talking", total=len(pairs) * plan.seeds)
    samples = []
    films: list[NDArray[np.uint8]] = []
    wide_gap = subjects.wide_gap
    for number, (name, clip) in enumerate(pairs):
        puppet = subjects.puppet(name)
        truth = true_motion(clip, puppet, subjects.landmarker, subjects.identity, wide_gap=wide_gap)
        for seed in job.seeds:
            talk = speak(
                subjects.engine,
                name,
                subjects.avatar(name),
                clip,
                subjects.landmarker,
                seed=job.noise(seed, number),
                num_steps=plan.num_steps,
                chunk_frames=plan.chunk_frames,
            )
            comparison = compare(talk, truth, subjects.identity)
            samples.append(Sample(f"{name} {clip.id}", seed, comparison))
            if seed == 1 and len(films) < _FILMED_TALKS:
                films.append(talk.film.frames[_FILM].copy())
            job.progress.advance(task)
    write_sheet(films, job.out / "talking.png")
    return job.measured(samples, talk_figures)


def recordings(job: Job) -> Measured:
    """Recordings of people; nothing where there are none."""
    subjects, plan = job.subjects, job.plan
    chosen = subjects.recordings[: plan.recordings]
    task = job.progress.add_task("recordings", total=len(chosen) * plan.seeds)
    samples, plotted = [], []
    for number, path in enumerate(chosen):
        name = subjects.names[number % len(subjects.names)]
        for seed in job.seeds:
            response = respond(
                subjects.engine,
                subjects.avatar(name),
                path,
                subjects.landmarker,
                seconds=plan.recording_s,
                seed=job.noise(seed, number),
                num_steps=plan.num_steps,
            )
            if seed == 1:
                plotted.append(response)
            samples.append(Sample(path.stem, seed, response.without_frames()))
            job.progress.advance(task)
    if not samples:
        return Measured()
    plot_recordings(plotted, job.out / "recordings.png")
    return job.measured(samples, recording_figures)


def photographs(job: Job) -> Measured:
    """Photographs that nobody trained on, on one contact sheet, one below the other."""
    subjects, plan = job.subjects, job.plan
    task = job.progress.add_task("photographs", total=len(subjects.photographs))
    samples = []
    for number, name in enumerate(subjects.photographs):
        clip = subjects.speaking[number % len(subjects.speaking)]
        film = play(
            subjects.engine,
            subjects.avatar(name),
            as_int16(clip.pcm[: int(plan.photograph_s * SAMPLE_RATE)]),
            seed=job.noise(1, number),
            num_steps=plan.num_steps,
        )
        portrait = subjects.portrait(name).image
        judged = np.concatenate([portrait[None], film.frames[::10]])
        points = subjects.landmarker.detect(film.frames[::2])
        found = likeness(portrait, film.frames, points, subjects.identity.embed(judged))
        samples.append(Sample(name, 1, found))
        job.progress.advance(task)
    if not samples:
        return Measured()
    write_sheet([sample.value.row for sample in samples], job.out / "photographs.png")
    found_all = job.measured(samples, likeness_figures)
    return Measured(figures=found_all.figures, intervals=found_all.intervals)


def endurance(job: Job) -> Measured:
    """Sessions that speak without an end, one a seed."""
    subjects, plan = job.subjects, job.plan
    task = job.progress.add_task("endurance", total=plan.seeds)
    samples = []
    for seed in job.seeds:
        name = subjects.names[seed % len(subjects.names)]
        longest = endure(
            subjects.engine,
            subjects.avatar(name),
            subjects.speaking[seed % len(subjects.speaking)],
            subjects.landmarker,
            chunks=plan.endurance_chunks,
            seed=job.noise(seed, 0),
            num_steps=plan.num_steps,
        )
        samples.append(Sample(name, seed, longest))
        job.progress.advance(task)
    write_sheet([sample.value.film for sample in samples], job.out / "endurance.png")
    return job.measured(samples, _endurance_figures)


def _endurance_figures(longest: Sequence[Endurance]) -> dict[str, float]:
    return {
        "endurance_chunks": float(np.mean([one.chunks for one in longest])),
        "endurance_sharpness_ratio": float(np.mean([one.sharpness_ratio for one in longest])),
        "endurance_motion_ratio": float(np.mean([one.motion_ratio for one in longest])),
        "endurance_face_found": float(np.mean([one.face_found for one in longest])),
    }


def stability(job: Job) -> Measured:
    """DRIFT for every way of handing over, and RECOVER as deployed."""
    subjects, plan = job.subjects, job.plan
    run = LongRun(subjects.engine.pipeline, num_steps=plan.num_steps)

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
    _show_stability(drifts, recoveries, job.out)
    parts = [job.measured(recoveries, recovery_figures)]
    for way, samples in drifts.items():
        parts.append(job.measured(samples, partial(_prefixed, PREFIXES[way])))
    return joined(parts)


def _prefixed(prefix: str, drifts: Sequence[Drift]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in drift_figures(drifts).items()}


def _show_stability(
    drifts: Mapping[HandOver, Sequence[Sample[Drift]]],
    recoveries: Sequence[Sample[Recovery]],
    out: Path,
) -> None:
    films: list[NDArray[np.uint8]] = [
        np.stack(list(samples[0].value.film.values())) for samples in drifts.values()
    ]
    write_sheet(films, out / "drift-film.png")
    plot_stability(
        {way: [sample.value for sample in samples] for way, samples in drifts.items()},
        [sample.value for sample in recoveries],
        out / "stability.png",
    )


RUN: Final[dict[Part, Callable[[Job], Measured]]] = {
    "speed": speed,
    "autoencoder": autoencoder,
    "talking": talking,
    "recordings": recordings,
    "photographs": photographs,
    "endurance": endurance,
    "stability": stability,
}
