"""`visavis eval`: the embedded model's figures on held-out portraits and voices."""

import os
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import Progress

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import frame_portrait
from visavis.engine.long_run import LongRun, LongSession
from visavis.engine.weight_memory import WeightMemory
from visavis.engine.weights import find_weights
from visavis.training.codec_data import Puppet, random_controls
from visavis.training.evaluation.against_truth import compare
from visavis.training.evaluation.drift import drift
from visavis.training.evaluation.figures import (
    comparison_figures,
    comparison_intervals,
    plot_stability,
    stability_figures,
)
from visavis.training.evaluation.realtime import chunk_realtime_factor
from visavis.training.evaluation.recordings import (
    SUFFIXES,
    find_recordings,
    plot_recordings,
    recording_figures,
    respond,
)
from visavis.training.evaluation.report import print_table, write_json, write_sheet
from visavis.training.evaluation.round_trip import RoundTrip, round_trip
from visavis.training.evaluation.stability import recover
from visavis.training.evaluation.statistics import synchrony
from visavis.training.evaluation.talking import Endurance, Talk, endure, speak
from visavis.training.identity import IdentityJudge
from visavis.training.landmarks import IndependentLandmarker
from visavis.training.puppets.bank import HELD_OUT
from visavis.training.puppets.controls import lip_gap
from visavis.training.speech.eval_set import EvalClip, read_eval_clips

FRAME_SIZE: Final = (256, 256)
PORTRAITS_VARIABLE: Final = "VISAVIS_PORTRAITS"
DEFAULT_PORTRAITS: Final = Path("../shared/data/portraits")
RECORDINGS_VARIABLE: Final = "VISAVIS_RECORDINGS"
DEFAULT_RECORDINGS: Final = Path("../shared/data/speech")
# The true range of the lips' gap in eye distances is not known for a portrait that was never
# animated: the opening of a clip's loudest tenth stands for it.
WIDE_QUANTILE: Final = 0.95
BLINK_DEPTH: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """How much is evaluated."""

    round_trip_portraits: int = 30
    round_trip_frames: int = 30
    talks: int = 18
    endurance_chunks: int = 100
    drift_checkpoints: tuple[int, ...] = (1, 10, 100, 1000)
    drift_sessions: int = 4
    recovery_sessions: int = 4
    recordings: int = 8
    recording_s: float = 16.0
    num_steps: int = 4
    seed: int = 1


QUICK: Final = EvaluationPlan(
    round_trip_portraits=4,
    round_trip_frames=12,
    talks=4,
    endurance_chunks=12,
    drift_checkpoints=(1, 10),
    drift_sessions=2,
    recovery_sessions=1,
    recordings=1,
    recording_s=6.0,
)


class EvaluationDataError(ValueError):
    """The portraits for the evaluation are not there."""


def held_out_portraits(folder: Path | None) -> list[Path]:
    """The thirty held-out pictures, in a fixed order.

    Raises EvaluationDataError naming the folder and where to get the pictures.
    """
    chosen = folder or Path(os.environ.get(PORTRAITS_VARIABLE, DEFAULT_PORTRAITS))
    paths = [chosen / f"{name}.jpg" for name in sorted(HELD_OUT)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise EvaluationDataError(
            f"portraits={chosen} lacks {len(missing)} of the {len(paths)} held-out pictures, first "
            f"{missing[0].name}; get the CC0 collection faker-js/assets-person-portrait (docs/"
            f"training.md says how to name the files) and pass --portraits or set "
            f"{PORTRAITS_VARIABLE}"
        )
    # Women and men by turns, so that any first few are both.
    half = len(paths) // 2
    return [path for pair in zip(paths[:half], paths[half:], strict=True) for path in pair]


def _recordings(folder: Path | None) -> list[Path]:
    """Raises EvaluationDataError when a folder was named that holds none."""
    named = folder or os.environ.get(RECORDINGS_VARIABLE)
    found = find_recordings(Path(named) if named else DEFAULT_RECORDINGS)
    if named and not found:
        raise EvaluationDataError(
            f"recordings={named} holds no {', '.join(SUFFIXES)} files; name a folder that does"
        )
    return found


def evaluate(
    *,
    portraits: Path | None = None,
    recordings: Path | None = None,
    weights: Path | None = None,
    out: Path = Path("runs/eval"),
    json_file: Path | None = None,
    plan: EvaluationPlan = EvaluationPlan(),
    memory: WeightMemory | None = None,
) -> dict[str, float]:
    """Measure everything, print the table, write the sheets; returns the figures by name.

    Without recordings of people, their figures are left out.
    `memory`: how the transformer's weights are held; None: as they are.
    """
    paths = held_out_portraits(portraits)
    spoken_by_people = _recordings(recordings)[: plan.recordings]
    clips = read_eval_clips()
    # Figures of one release compare with the next at the size that the model itself sees.
    engine = AvatarEngine.load("embedded", weights=weights, memory=memory, frame_size=FRAME_SIZE)
    engine.warm_up()
    figures: dict[str, float] = {}
    landmarker = FaceLandmarker()
    framed = {path.stem: frame_portrait(path, landmarker=landmarker) for path in paths}
    avatars = {name: engine.prepare_avatar(portrait) for name, portrait in framed.items()}

    @cache
    def puppet(name: str) -> Puppet:
        return Puppet.of(name, framed[name])

    speed = chunk_realtime_factor(engine, avatars[paths[0].stem])
    codec = MotionCodec.load(find_weights("embedded", weights))
    with (
        IndependentLandmarker() as judge,
        IdentityJudge() as identity,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("autoencoder", total=plan.round_trip_portraits)
        trips = []
        rng = np.random.default_rng(plan.seed)
        for path in paths[: plan.round_trip_portraits]:
            controls = random_controls(rng, plan.round_trip_frames)
            trips.append(round_trip(codec, puppet(path.stem), controls, judge))
            progress.advance(task)
        task = progress.add_task("talking", total=plan.talks)
        talks, comparisons = [], []
        for number, (name, clip) in enumerate(_pairs(paths, clips, plan.talks)):
            talk = speak(
                engine,
                name,
                avatars[name],
                clip,
                judge,
                seed=plan.seed + number,
                num_steps=plan.num_steps,
            )
            talks.append(talk)
            if speaks(clip):
                comparisons.append(compare(talk, puppet(name), judge, identity))
            progress.advance(task)
        task = progress.add_task("recordings", total=len(spoken_by_people))
        responses = []
        for number, recording in enumerate(spoken_by_people):
            response = respond(
                engine,
                avatars[paths[number % len(paths)].stem],
                recording,
                judge,
                seconds=plan.recording_s,
                seed=plan.seed + number,
            )
            responses.append(response)
            progress.advance(task)
        task = progress.add_task("endurance", total=1)
        longest = endure(
            engine,
            avatars[paths[1].stem],
            next(clip for clip in clips if speaks(clip)),
            judge,
            chunks=plan.endurance_chunks,
            seed=plan.seed,
        )
        progress.advance(task)
        task = progress.add_task("drift and recovery", total=2)
        run = LongRun(engine.pipeline, num_steps=plan.num_steps)
        spoken = [clip for clip in clips if speaks(clip)]

        def session(number: int) -> LongSession:
            name, clip = paths[number % len(paths)].stem, spoken[number % len(spoken)]
            return run.open(avatars[name], clip.pcm, plan.seed + number)

        drifting = drift(
            run,
            [session(number) for number in range(plan.drift_sessions)],
            plan.drift_checkpoints,
            judge,
        )
        progress.advance(task)
        recovery = recover(
            run, [partial(session, 10 + number) for number in range(plan.recovery_sessions)]
        )
        progress.advance(task)
    figures |= _figures(trips, talks, longest)
    figures |= comparison_figures(comparisons)
    figures |= stability_figures(drifting, recovery)
    if responses:
        figures |= recording_figures(responses)
        plot_recordings(responses, out / "recordings.png")
    intervals = comparison_intervals(comparisons, plan.seed)
    figures["chunk_realtime_factor"] = speed
    _write_sheets(trips, talks, longest, out)
    write_sheet([np.stack(list(drifting.film.values()))], out / "drift-film.png")
    plot_stability(drifting, recovery, out / "stability.png")
    print_table(figures, intervals=intervals)
    if json_file is not None:
        write_json(figures, json_file, intervals=intervals)
    return figures


def speaks(clip: EvalClip) -> bool:
    """Whether there is speech in it; one clip has only noise."""
    return clip.voice != "none"


def _pairs(paths: list[Path], clips: list[EvalClip], count: int) -> list[tuple[str, EvalClip]]:
    """Portraits and clips, each as often as the next."""
    return [(paths[i % len(paths)].stem, clips[i % len(clips)]) for i in range(count)]


def _figures(trips: list[RoundTrip], talks: list[Talk], longest: Endurance) -> dict[str, float]:
    speaking = [talk for talk in talks if speaks(talk.clip)]
    sync = synchrony([(talk.opening, lip_gap(talk.clip.controls)) for talk in speaking])
    minutes = sum(len(talk.eyes) for talk in talks) / (25 * 60)
    return {
        "sync_r": sync.r,
        "sync_lag_frames": float(sync.lag_frames),
        "face_found": float(np.mean([talk.face_found for talk in talks])),
        "psnr_outside_db": float(np.mean([trip.psnr_outside_db for trip in trips])),
        "psnr_cavity_db": float(np.mean([trip.psnr_cavity_db for trip in trips])),
        "autoencoder_aperture_r": float(np.mean([trip.aperture_r for trip in trips])),
        "autoencoder_eyelid_r": float(np.mean([trip.eyelid_r for trip in trips])),
        "boundary_jump_ratio": float(np.mean([talk.boundary_jump_ratio for talk in talks])),
        "silence_opening": _silence_opening(speaking),
        "blinks_per_minute": sum(_blinks(talk) for talk in talks) / minutes,
        "endurance_chunks": float(longest.chunks),
        "endurance_sharpness_ratio": longest.sharpness_ratio,
        "endurance_motion_ratio": longest.motion_ratio,
        "endurance_face_found": longest.face_found,
    }


def _silence_opening(talks: list[Talk]) -> float:
    """Opening beyond rest while the truth is shut, in parts of the clip's own range."""
    shares = []
    for talk in talks:
        gap = lip_gap(talk.clip.controls)[: len(talk.opening)]
        shut = talk.opening[: len(gap)][gap <= 0.01]
        rest = float(np.quantile(talk.opening, 0.02))
        wide = float(np.quantile(talk.opening, WIDE_QUANTILE))
        if len(shut) and wide > rest:
            shares.append((float(np.median(shut)) - rest) / (wide - rest))
    return float(np.mean(shares)) if shares else 0.0


def _blinks(talk: Talk) -> int:
    """Falls of the eye opening below a share of its usual size."""
    shut = talk.eyes < BLINK_DEPTH * np.median(talk.eyes)
    return int(np.sum(shut[1:] & ~shut[:-1]))


def _write_sheets(trips: list[RoundTrip], talks: list[Talk], longest: Endurance, out: Path) -> None:
    pairs = [frames[:8] for trip in trips[:6] for frames in (trip.truth, trip.rebuilt)]
    write_sheet(pairs, out / "autoencoder.png")
    write_sheet([talk.frames[20:84] for talk in talks[:8]], out / "talking.png", every=8)
    write_sheet([longest.film], out / "endurance.png")
