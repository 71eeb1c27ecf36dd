"""The parts of an evaluation: each makes its sheets and gives its figures with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.engine.codec.motion import MotionCodec
from visavis.training.codec_data import random_controls
from visavis.training.evaluation.against_truth import compare, true_motion
from visavis.training.evaluation.bootstrap import Measured, Sample
from visavis.training.evaluation.job import Job
from visavis.training.evaluation.photographs import likeness, likeness_figures
from visavis.training.evaluation.plan import Part
from visavis.training.evaluation.realtime import chunk_realtime_factors
from visavis.training.evaluation.recordings import plot_recordings, recording_figures, respond
from visavis.training.evaluation.report import write_sheet
from visavis.training.evaluation.round_trip import RoundTrip, round_trip
from visavis.training.evaluation.stability_part import stability
from visavis.training.evaluation.talk_figures import talk_figures
from visavis.training.evaluation.talking import Endurance, as_int16, endure, play, speak
from visavis.training.speech.phonemes import SAMPLE_RATE

_FILM: Final = slice(20, 84, 8)
_FILMED_TALKS: Final = 8


def speed(job: Job) -> Measured:
    """How long a chunk takes here."""
    avatar = job.subjects.avatar(job.subjects.names[0])
    factors = chunk_realtime_factors(job.subjects.engine, avatar, num_steps=job.plan.num_steps)
    samples = [Sample(str(number), 1, factor) for number, factor in enumerate(factors)]
    found = job.measured(
        samples, lambda values: {"chunk_realtime_factor": float(np.median(values))}
    )
    return replace(found, seeds={})


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
    return replace(found, seeds={})


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
        truth = true_motion(
            clip,
            puppet,
            subjects.landmarker,
            subjects.identity,
            strangers=subjects.strangers(name),
            wide_gap=wide_gap,
        )
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
    return replace(found_all, seeds={})


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


RUN: Final[dict[Part, Callable[[Job], Measured]]] = {
    "speed": speed,
    "autoencoder": autoencoder,
    "talking": talking,
    "recordings": recordings,
    "photographs": photographs,
    "endurance": endurance,
    "stability": stability,
}
