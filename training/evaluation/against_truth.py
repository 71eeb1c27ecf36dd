"""Generated talking beside the same clip's true motion, both looked at by the same detectors.

The truth is the puppet that the clip's own controls move on the same portrait.

Legend: N frames, K measures, h w control grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.training.codec_data import Puppet
from visavis.training.evaluation.frechet import Moments
from visavis.training.evaluation.recordings import FPS, inside_pauses, loudness
from visavis.training.evaluation.round_trip import quantise, to_pictures
from visavis.training.evaluation.silence import (
    SHUT_GAP,
    MouthRange,
    mouth_range,
    onset_jump_ratio,
    onsets,
)
from visavis.training.evaluation.statistics import (
    Series,
    boundary_jump_ratio,
    frame_differences,
    lag_correlations,
    sharpness,
)
from visavis.training.evaluation.talking import Talk, speaks
from visavis.training.identity import (
    Embeddings,
    IdentityJudge,
    identity_ratio,
    same_person,
    similarity,
)
from visavis.training.landmarks import (
    IndependentLandmarker,
    Landmarks,
    eye_openings,
    face_found,
    head_pose,
    mouth_opening,
)
from visavis.training.motion_metrics import head_acceleration, slot_jump_ratio
from visavis.training.puppets.controls import lip_gap
from visavis.training.speech.eval_set import EvalClip

BATCH = 10
IDENTITY_EVERY = 25
# A lid is shut below this share of the eye's usual opening; a wink leaves the other one above.
SHUT, OPEN = 0.55, 0.8
BLINK_DEPTH = 0.6
# Chunks, counted from 0, at which the later two of the talk's three parts begin.
PARTS = {"early": 0, "middle": 2, "late": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the clip's own motion looks like on a portrait; shared by all seeds.

    `codes` [N, 6, h, w], landmarks `points`, `differences` [N - 1] from frame to frame, mean
    `sharpness`. `similarity` is that of its frames to the portrait's embedding `portrait`,
    `strangers` that of other portraits, `same_person` the share of its frames that pass for the
    portrait's person.
    """

    codes: Tensor
    points: Landmarks
    differences: Series
    sharpness: float
    portrait: NDArray[np.float32]
    similarity: float
    strangers: float
    same_person: float
    mouth: MouthRange


def true_motion(
    clip: EvalClip,
    puppet: Puppet,
    landmarker: IndependentLandmarker,
    identity: IdentityJudge,
    *,
    strangers: Embeddings,
    wide_gap: float,
) -> Truth:
    """Render the clip's truth and look at it.

    `strangers` [M, 128]: embeddings of other people's portraits; `wide_gap`: lips' gap that counts
    as wide open.
    """
    codes = torch.from_numpy(puppet.basis.codes(clip.controls))
    frames = np.concatenate(
        [to_pictures(quantise(puppet.render(part))) for part in torch.split(codes, BATCH)]
    )
    (embedded,) = identity.embed(to_pictures(puppet.reference.portrait))
    seen = identity.embed(frames[::IDENTITY_EVERY])
    return Truth(
        codes=codes,
        points=landmarker.detect(frames),
        differences=frame_differences(frames),
        sharpness=float(sharpness(frames).mean()),
        portrait=embedded,
        similarity=similarity(seen, embedded),
        strangers=similarity(strangers, embedded),
        same_person=same_person(seen, embedded),
        mouth=mouth_range(puppet, landmarker, wide_gap),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One talk beside its truth.

    `scalars`: figures by name, see `compare`. `lags`: correlation with the true gap at each lag;
    `measures`: moments by part of the talk ("" is the whole), generated and true. Both are there
    only if the clip speaks.
    """

    scalars: dict[str, float]
    lags: NDArray[np.float64] | None
    measures: dict[str, tuple[Moments, Moments]]


def compare(talk: Talk, truth: Truth, identity: IdentityJudge) -> Comparison:
    """Measure a talk.

    Of every clip: `face_found`, `boundary_jump_ratio`, `slot_jump_ratio` (head, see
    `motion_metrics`), `head_acceleration_ratio` over the truth's, `blinks_per_minute`,
    `sharpness_ratio` over the truth's. Of speech: `dyn_mouth`, `dyn_pose` (mean over five
    measures), `dyn_lids`, `dyn_high_band` (of the mouth's change from frame to frame), all variance
    ratios generated over true; `identity_ratio`: similarity to the portrait, 0 for strangers and 1
    for the truth; `identity_same_person`: share of frames that pass for the portrait's person;
    `winks`: share of shut-eye frames with the other eye open, as the detector sees it;
    `silence_opening`: median opening inside pauses, while the truth is shut, in parts of the
    portrait's own range, and `silence_opening_p95`; `closure_opening`: the same in a moment's
    closure as of m, b and p, and at a pause's edges; `onset_jump_ratio`, and the same over the
    truth's. Of the clip without speech, `wordless_opening`. Names that end in `_truth` say what
    the truth itself scores.
    """
    count = min(len(talk.film.frames), len(truth.codes))
    eyes, true_eyes = eye_openings(talk.points), eye_openings(truth.points)
    differences = frame_differences(talk.film.frames)
    borders = np.array(talk.film.borders, np.int64)
    codes, true_codes = talk.film.codes[None, :count], truth.codes[None, :count]
    scalars = {
        "face_found": face_found(talk.points),
        "boundary_jump_ratio": boundary_jump_ratio(differences, talk.film.borders),
        "boundary_jump_ratio_truth": boundary_jump_ratio(truth.differences, talk.film.borders),
        "slot_jump_ratio": slot_jump_ratio(codes, borders),
        "slot_jump_ratio_truth": slot_jump_ratio(true_codes, borders),
        "head_acceleration_ratio": float(
            head_acceleration(codes) / head_acceleration(true_codes).clamp_min(1e-6)
        ),
        "sharpness_ratio": float(sharpness(talk.film.frames).mean()) / max(truth.sharpness, 1e-6),
        "blinks_per_minute": _blinks_per_minute(eyes.mean(axis=1)),
        "blinks_per_minute_truth": _blinks_per_minute(true_eyes.mean(axis=1)),
    }
    opening, true_opening = talk.opening[:count], mouth_opening(truth.points)[:count]
    if not speaks(talk.clip):
        scalars["wordless_opening"] = float(np.median(truth.mouth.share(opening)))
        scalars["wordless_opening_p95"] = float(np.quantile(truth.mouth.share(opening), 0.95))
        return Comparison(scalars=scalars, lags=None, measures={})
    gap = lip_gap(talk.clip.controls)
    pose, true_pose = head_pose(talk.points)[:count], head_pose(truth.points)[:count]
    eyes, true_eyes = eyes[:count], true_eyes[:count]
    seen = identity.embed(talk.film.frames[::IDENTITY_EVERY])
    starts = onsets(loudness(talk.clip.pcm)[:count])
    jump, true_jump = (onset_jump_ratio(d, starts) for d in (differences, truth.differences))
    scalars |= {
        "dyn_mouth": _variance_ratio(opening, true_opening),
        "dyn_pose": float(
            np.mean([_variance_ratio(a, b) for a, b in zip(pose.T, true_pose.T, strict=True)])
        ),
        "dyn_lids": _variance_ratio(eyes.mean(axis=1), true_eyes.mean(axis=1)),
        "dyn_high_band": _variance_ratio(np.diff(opening), np.diff(true_opening)),
        "identity_ratio": identity_ratio(
            similarity(seen, truth.portrait), truth=truth.similarity, strangers=truth.strangers
        ),
        "identity_same_person": same_person(seen, truth.portrait),
        "identity_same_person_truth": truth.same_person,
        "winks": wink_share(eyes),
        "winks_truth": wink_share(true_eyes),
        "onset_jump_ratio": jump,
        "onset_jump_ratio_truth": true_jump,
        "onset_jump_over_truth": jump / max(true_jump, 1e-6),
    }
    shut = gap[:count] <= SHUT_GAP
    silent = inside_pauses(shut)
    for name, found in (("", opening), ("_truth", true_opening)):
        share = truth.mouth.share(found)
        if silent.any():
            scalars[f"silence_opening{name}"] = float(np.median(share[silent]))
            scalars[f"silence_opening_p95{name}"] = float(np.quantile(share[silent], 0.95))
        if (shut & ~silent).any():
            scalars[f"closure_opening{name}"] = float(np.median(share[shut & ~silent]))
    rows = np.column_stack([opening, eyes, pose])
    true_rows = np.column_stack([true_opening, true_eyes, true_pose])
    return Comparison(
        scalars=scalars, lags=lag_correlations(opening, gap), measures=_parts(talk, rows, true_rows)
    )


def wink_share(eyes_N2: NDArray[np.float64]) -> float:
    """Of the frames in which one eye is shut, the share whose other eye is open; 0 without any."""
    share = eyes_N2 / np.median(eyes_N2, axis=0)
    shut = share.min(axis=1) < SHUT
    return float(np.mean(share.max(axis=1)[shut] > OPEN)) if shut.any() else 0.0


def _parts(
    talk: Talk, rows_NK: NDArray[np.float64], true_NK: NDArray[np.float64]
) -> dict[str, tuple[Moments, Moments]]:
    """Moments of the whole talk and of each part that has at least three frames."""
    chunks = (0, *talk.film.borders)
    begins = [chunks[first] for first in PARTS.values() if first < len(chunks)]
    spans = {"": (0, len(rows_NK))}
    spans |= dict(zip(PARTS, zip(begins, [*begins[1:], len(rows_NK)], strict=True), strict=False))
    return {
        name: (Moments.of(rows_NK[start:end]), Moments.of(true_NK[start:end]))
        for name, (start, end) in spans.items()
        if end - start >= 3
    }


def _blinks_per_minute(eyes: Series) -> float:
    """Falls of the eyes' opening [N] below a share of its usual size."""
    shut = eyes < BLINK_DEPTH * np.median(eyes)
    return float(np.sum(shut[1:] & ~shut[:-1]) * 60 * FPS / len(eyes))


def _variance_ratio(generated: Series, truth: Series) -> float:
    return float(np.var(generated) / max(float(np.var(truth)), 1e-12))
