"""The whole evaluation on a tiny model, with judges that read simple things off the pixels."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis import cli
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_reference import MotionReference
from visavis.engine.face.framing import Portrait
from visavis.engine.long_run import LongRun, LongSession
from visavis.engine.schematic import schematic_portrait
from visavis.training.evaluation import bootstrap
from visavis.training.evaluation import run as evaluation_run
from visavis.training.evaluation.plan import PARTS, QUICK, EvaluationPlan, parse_parts
from visavis.training.evaluation.report import BARS
from visavis.training.evaluation.run import FRAME_SIZE, measure
from visavis.training.evaluation.stability import DISTURBANCES
from visavis.training.evaluation.subjects import Subjects
from visavis.training.evaluation.talking import as_int16, play
from visavis.training.identity import EMBEDDING, Embeddings, IdentityJudge
from visavis.training.landmarks import POINTS, IndependentLandmarker, Landmarks
from visavis.training.speech.audio_files import write_flac
from visavis.training.speech.eval_set import EvalClip, read_eval_clips
from visavis.training.speech.phonemes import SAMPLE_RATE

FRAMES = 48
TINY = EvaluationPlan(
    seeds=2,
    num_steps=1,
    round_trip_portraits=1,
    round_trip_frames=4,
    talks=2,
    endurance_chunks=2,
    drift_checkpoints=(1, 1000),
    drift_sessions=1,
    reencoded_sessions=1,
    recovery_sessions=1,
    recordings=1,
    recording_s=1.5,
    photograph_s=1.0,
    bootstraps=20,
)
# What `visavis eval --json` promises.
PROMISED = {
    "sync_r", "sync_lag_frames", "dyn", "drift_1", "drift_1000", "drift_ratio_1000", "collapsed",
    "reencoded_drift_ratio_1000", "corrected_drift_ratio_1000", "reencoded_collapsed",
    "boundary_jump_ratio", "slot_jump_ratio", "head_acceleration_ratio", "recover_1", "recover_2",
    "recover_5", "recover_10", "identity_ratio", "identity_same_person", "sharpness_ratio",
    "silence_opening", "wordless_opening", "onset_jump_ratio", "onset_jump_over_truth",
    "frechet_distance", "frechet_distance_early",
    "frechet_distance_middle", "psnr_outside_db", "psnr_outside_still_db",
    "psnr_outside_painter_db", "psnr_outside_border_db", "psnr_cavity_db", "autoencoder_aperture_r",
    "autoencoder_eyelid_r", "autoencoder_eyelid_r_truth", "autoencoder_eyelid_r_paired",
    "autoencoder_lid_r", "autoencoder_lid_r_truth", "autoencoder_lid_code_r",
    "recordings_r", "photographs_similarity", "chunk_realtime_factor", "endurance_motion_ratio",
}  # fmt: skip


class PixelLandmarker(IndependentLandmarker):
    """The schematic's landmarks, moved and opened by what the pixels show there."""

    def __init__(self, portrait: Portrait) -> None:
        self._rest = portrait.image.astype(np.float32)
        self._points = np.zeros((POINTS, 2), np.float32)
        self._points[: len(portrait.landmarks)] = portrait.landmarks

    def detect(self, frames_NHWC: NDArray[np.uint8]) -> Landmarks:
        points = np.repeat(self._points[None], len(frames_NHWC), axis=0)
        change = np.abs(frames_NHWC.astype(np.float32) - self._rest).mean(axis=3)
        points[:, [14, 317, 87], 1] += change[:, 165:215, 90:165].mean(axis=(1, 2))[:, None]
        for lower, columns in ((145, slice(85, 120)), (374, slice(140, 175))):
            points[:, lower, 1] -= change[:, 90:115, columns].mean(axis=(1, 2))
        points[..., 0] += change[:, 60:130].mean(axis=(1, 2))[:, None]
        points[:, 1] += change[:, 130:160].mean(axis=(1, 2))[:, None]
        return points


class PixelIdentity(IdentityJudge):
    """A face is its picture, 8 by 16 pixels small."""

    def __init__(self) -> None:
        pass

    def embed(self, frames_NHWC: NDArray[np.uint8]) -> Embeddings:
        small = [cv2.resize(frame.mean(axis=2), (16, 8)) for frame in frames_NHWC]
        values = np.stack(small).reshape(len(small), EMBEDDING)
        return np.asarray(values - values.mean(axis=1, keepdims=True), np.float32)


def portrait(seed: int) -> Portrait:
    """The schematic's landmarks over a smooth pattern."""
    noise = np.random.default_rng(seed).normal(size=(256, 256, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 5), np.float32)
    image = np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return Portrait(image, schematic_portrait(256).landmarks)


def clips() -> list[EvalClip]:
    """The beginnings of one clip that speaks and of the one that does not."""
    chosen = [clip for clip in read_eval_clips() if clip.id in {"kokoro-1", "wordless"}]
    samples = FRAMES * SAMPLE_RATE // 25
    return [
        replace(clip, pcm=clip.pcm[:samples], controls=clip.controls[:FRAMES]) for clip in chosen
    ]


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    torch.manual_seed(0)
    return AvatarEngine.load("test", frame_size=FRAME_SIZE)


@pytest.fixture
def subjects(engine: AvatarEngine, tmp_path: Path) -> Subjects:
    recording = tmp_path / "people.flac"
    write_flac(recording, clips()[0].pcm, SAMPLE_RATE)
    return Subjects(
        engine,
        {name: partial(portrait, seed) for seed, name in enumerate(("anna", "ben"))},
        clips(),
        PixelLandmarker(portrait(0)),
        PixelIdentity(),
        recordings=[recording],
        photographs={"photograph": partial(portrait, 7)},
    )


def skip_what_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run of a thousand chunks, the fifth stands for all up to the last five."""
    twins = len(DISTURBANCES) + 1  # a short run, of which every chunk counts
    make = LongRun.advance
    made: dict[int, tuple[int, LongSession, list[Tensor]]] = {}

    def advance(run: LongRun, sessions: list[LongSession]) -> list[Tensor]:
        count, _, codes = made.get(id(sessions[0]), (0, sessions[0], []))
        if count < 5 or count >= 995 or len(sessions) == twins:
            codes = make(run, sessions)
        made[id(sessions[0])] = (count + 1, sessions[0], codes)
        return codes

    monkeypatch.setattr(LongRun, "advance", advance)


def test_every_promised_figure_is_there_finite_and_has_its_interval(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_what_nobody_looks_at(monkeypatch)
    # Of one or two talks, which is all that this looks at, there would be none.
    monkeypatch.setattr(bootstrap, "LEAST_CLUSTERS", 1)
    path = tmp_path / "figures.json"
    figures = measure(subjects, TINY, out=tmp_path, json_file=path)
    assert set(figures) >= PROMISED
    assert all(np.isfinite(value) for value in figures.values()), figures
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {name: written[name] for name in figures} == pytest.approx(figures, abs=1e-4)
    assert set(written["intervals"]) == set(written["n"]) == set(figures)
    assert all(low <= high for low, high in written["intervals"].values())
    assert set(written["seeds"]) == {"1", "2"}
    assert written["seeds"]["1"]["dyn"] != written["seeds"]["2"]["dyn"]
    assert written["run"]["steps"] == 1
    assert set(written["run"]["seconds"]) == set(PARTS)
    for sheet in ("autoencoder", "talking", "recordings", "photographs", "endurance", "drift-film"):
        assert (tmp_path / f"{sheet}.png").stat().st_size > 1000
    assert (tmp_path / "stability.png").stat().st_size > 5000


@pytest.mark.parametrize(("chunk_frames", "new"), [(9, 4), (13, 8), (33, 12)])
def test_talks_are_made_in_chunks_as_short_as_wanted(
    engine: AvatarEngine, subjects: Subjects, chunk_frames: int, new: int
) -> None:
    pcm = as_int16(clips()[0].pcm)
    film = play(
        engine, subjects.avatar("anna"), pcm, seed=0, num_steps=1, chunk_frames=chunk_frames
    )
    assert len(film.frames) == FRAMES
    # The first chunk after silence is at most 17 frames long.
    assert film.borders[0] == new
    assert max(np.diff(film.borders, append=FRAMES)) <= chunk_frames - 5


def test_a_frozen_face_has_no_dynamics(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frozen(self: MotionCodec, codes: Tensor, reference: MotionReference) -> Tensor:
        still = torch.from_numpy(portrait(0).image)
        return still.expand(len(codes), -1, -1, -1)

    monkeypatch.setattr(MotionCodec, "draw", frozen)
    plan = replace(TINY, parts=("talking",), talks=1, seeds=1)
    figures = measure(subjects, plan, out=tmp_path)
    assert figures["dyn_mouth"] == pytest.approx(0, abs=1e-5)
    assert figures["dyn"] == pytest.approx(0, abs=1e-5)
    assert figures["sync_r"] == 0
    assert figures["silence_opening"] == 0
    assert figures["frechet_distance"] > 0.1


def test_another_persons_face_fails_the_bar_of_identity(
    subjects: Subjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratio_of(image: NDArray[np.uint8]) -> float:
        def still(self: MotionCodec, codes: Tensor, reference: MotionReference) -> Tensor:
            return torch.from_numpy(image).expand(len(codes), -1, -1, -1)

        monkeypatch.setattr(MotionCodec, "draw", still)
        plan = replace(TINY, parts=("talking",), talks=1, seeds=1)
        return measure(subjects, plan, out=tmp_path)["identity_ratio"]

    bar = BARS["identity_ratio"]
    assert bar.met(ratio_of(portrait(0).image))
    others = ratio_of(portrait(1).image)
    assert not bar.met(others)
    # With two portraits, the other one is all that a stranger is.
    assert others == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("seeds", 0),
        ("talks", 0),
        ("num_steps", 0),
        ("endurance_chunks", -1),
        ("chunk_frames", 12),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(field: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={wrong}"):
        EvaluationPlan(**{field: wrong})  # type: ignore[arg-type]


def test_parts_run_in_their_order_and_a_wrong_one_is_named() -> None:
    assert parse_parts("stability, talking") == ("talking", "stability")
    with pytest.raises(ValueError, match=r"parts='drifting': choose among .*stability"):
        parse_parts("talking,drifting")


def test_the_command_hands_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(evaluation_run, "evaluate", lambda **given: told.update(given))
    people, pictures = Path("people"), Path("pictures")
    cli.evaluate(
        recordings=people,
        photographs=pictures,
        steps=2,
        chunk_frames=13,
        seeds=5,
        parts="talking",
        quick=True,
    )
    assert told["recordings"] == people
    assert told["photographs"] == pictures
    assert told["plan"] == replace(QUICK, num_steps=2, chunk_frames=13, seeds=5, parts=("talking",))
