"""Measures of long roll-outs and of talking against the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.training.evaluation.against_truth import Comparison, wink_share
from visavis.training.evaluation.drift import NOTICEABLE, Drift, drift_figures, measure
from visavis.training.evaluation.frechet import Moments, frechet_distance
from visavis.training.evaluation.stability import (
    DISTURBANCES,
    RECOVERY_CHUNKS,
    Recovery,
    recovery_figures,
)
from visavis.training.evaluation.talk_figures import talk_figures
from visavis.training.identity import similarity


class FixedFace:
    """A detector that sees the landmarks it was made with, frame after frame."""

    def __init__(self, points: NDArray[np.float32]) -> None:
        self.points = points

    def detect(self, frames_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.points[: len(frames_NHWC)]


def face(frames: int) -> NDArray[np.float32]:
    points = np.random.default_rng(0).uniform(60, 200, (1, 478, 2)).astype(np.float32)
    return np.repeat(points, frames, axis=0)


def portrait() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (256, 256, 3)).astype(np.uint8)


def drift_of(frames: NDArray[np.uint8], points: NDArray[np.float32]) -> dict[str, float]:
    factors = measure(frames, portrait(), FixedFace(points))  # type: ignore[arg-type]
    return dict(zip(NOTICEABLE, factors, strict=True))


def test_a_still_portrait_has_no_drift() -> None:
    factors = drift_of(np.repeat(portrait()[None], 3, axis=0), face(4))
    assert max(factors.values()) < 1e-6


def test_each_factor_notices_its_own_fault() -> None:
    still = np.repeat(portrait()[None], 3, axis=0)
    points = face(4)
    dark = drift_of((still * 0.8).astype(np.uint8), points)
    assert dark["colour"] > 1
    assert dark["shape"] < 1e-6
    edges = still.copy()
    edges[:, :20, :20] = 255 - edges[:, :20, :20]
    assert drift_of(edges, points)["border"] > 1
    moved = points.copy()
    moved[1:] += 30
    away = drift_of(still, moved)
    assert away["place"] > 1
    assert away["shape"] < 1e-4  # a shift is no change of shape
    bent = points.copy()
    bent[1:, 10] += 40
    assert drift_of(still, bent)["shape"] > 1
    soft = np.repeat(still.mean(axis=(1, 2), keepdims=True).astype(np.uint8), 256, 1).repeat(256, 2)
    soft[:, ::2] += 8
    assert drift_of(soft, points)["sharpness"] > 1


def drift_with(*factors: float) -> Drift:
    """A session with these drifts at chunks 1, 10, ..."""
    chunks = [10**place for place in range(len(factors))]
    return Drift(
        factors={n: np.full(5, value) for n, value in zip(chunks, factors, strict=True)},
        painted_border=dict.fromkeys(chunks, 0.5),
        jumps=dict.fromkeys(chunks, 1.1),
        film={},
    )


def test_ratios_and_collapse_come_from_the_factors() -> None:
    figures = drift_figures([drift_with(1.0, 1.5), drift_with(1.0, 6.0)])
    assert figures["drift_1"] == pytest.approx(1.0)
    assert figures["drift_10"] == pytest.approx(3.75)
    assert figures["drift_ratio_10"] == pytest.approx(3.75)
    assert figures["collapsed"] == 0.5
    assert figures["drift_border_painter_10"] == pytest.approx(0.5)
    assert figures["drift_boundary_jump_10"] == pytest.approx(1.1)


def test_recovery_is_that_of_the_worst_disturbance() -> None:
    sessions = [
        Recovery(residual={name: np.full(4, scale * i) for i, name in enumerate(DISTURBANCES)})
        for scale in (0.04, 0.06)
    ]
    figures = recovery_figures(sessions)
    assert figures["recover_5"] == pytest.approx(0.15)
    assert set(figures) == {f"recover_{n}" for n in RECOVERY_CHUNKS}


def test_one_eye_shut_is_a_wink_and_two_are_not() -> None:
    eyes = np.ones((100, 2))
    assert wink_share(eyes) == 0
    eyes[10:14] = 0.2
    assert wink_share(eyes) == 0
    eyes[50:54, 0] = 0.2
    assert wink_share(eyes) == pytest.approx(0.5)


def test_frechet_distance_is_nought_for_the_same_and_grows() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)).cumsum(axis=0) * 0.01 + rng.normal(size=(4000, 3))

    def distance(generated: NDArray[np.float64]) -> float:
        return frechet_distance(Moments.of(generated), Moments.of(truth))

    assert distance(truth) == pytest.approx(0, abs=1e-6)
    assert 0 < distance(truth + 0.2) < distance(truth + 1.0)
    assert distance(0.5 * truth) > 0.05
    # A shift by one deviation of three measures, whose changes it leaves alone.
    shift = truth.std(axis=0)
    assert distance(truth + shift) == pytest.approx(0.5, rel=1e-2)


def test_pooled_moments_are_those_of_all_frames() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 1
    pooled = Moments.pooled([Moments.of(first), Moments.of(second)])
    rows = np.concatenate([np.column_stack([m[1:], np.diff(m, axis=0)]) for m in (first, second)])
    np.testing.assert_allclose(pooled.mean, rows.mean(axis=0))
    np.testing.assert_allclose(pooled.covariance, np.cov(rows, rowvar=False))


def test_similarity_is_over_the_frames_with_a_face() -> None:
    reference = np.ones(128, np.float32)
    seen = np.stack([reference, -reference, np.full(128, np.nan, np.float32)])
    assert similarity(seen, reference) == pytest.approx(0)
    assert similarity(seen[:1] * 3, reference) == pytest.approx(1)
    assert np.isnan(similarity(seen[2:], reference))


def comparison(mouth: float, pose: float) -> Comparison:
    moments = Moments.of(np.random.default_rng(0).normal(size=(50, 3)))
    lags = np.zeros(17)
    lags[9] = 0.8  # one frame late
    return Comparison(
        scalars={"dyn_mouth": mouth, "dyn_pose": pose, "winks": mouth},
        lags=lags,
        measures={"": (moments, moments), "late": (moments, moments)},
    )


def test_half_and_double_motion_average_to_the_truth() -> None:
    figures = talk_figures([comparison(0.5, 1.0), comparison(2.0, 1.0)])
    assert figures["dyn_mouth"] == pytest.approx(1.0)
    assert figures["dyn"] == pytest.approx(1.0)
    assert figures["winks"] == pytest.approx(1.25)
    assert figures["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert figures["frechet_distance_late"] == pytest.approx(0, abs=1e-6)
    assert figures["sync_r"] == pytest.approx(0.8)
    assert figures["sync_lag_frames"] == 1


def test_a_clip_without_speech_has_no_say_in_what_speech_is_judged_by() -> None:
    wordless = Comparison(scalars={"wordless_opening": 0.02}, lags=None, measures={})
    assert talk_figures([wordless]) == {"wordless_opening": 0.02}
    both = talk_figures([comparison(1.0, 1.0), wordless])
    assert both["dyn_mouth"] == pytest.approx(1.0)
    assert both["wordless_opening"] == pytest.approx(0.02)
