"""Measures of long roll-outs and of talking against the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.training.evaluation.against_truth import Comparison, frechet_distance, wink_share
from visavis.training.evaluation.drift import NOTICEABLE, Drift, measure
from visavis.training.evaluation.figures import (
    comparison_figures,
    comparison_intervals,
    stability_figures,
)
from visavis.training.evaluation.stability import DISTURBANCES, RECOVERY_CHUNKS, Recovery
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


def test_ratios_and_collapse_come_from_the_factors() -> None:
    factors = {1: np.full((2, 5), 1.0), 10: np.array([[1.5] * 5, [6.0] * 5])}
    drift = Drift(factors=factors, film={})
    assert drift.ratio(10) == pytest.approx(3.75)
    assert drift.collapsed(10) == 0.5
    recovery = Recovery(
        residual={name: np.full((2, 4), 0.05 * i) for i, name in enumerate(DISTURBANCES)}
    )
    figures = stability_figures(drift, recovery)
    assert figures["drift_ratio_10"] == pytest.approx(3.75)
    assert figures["recover_5"] == pytest.approx(0.15)  # the worst disturbance
    assert {f"recover_{n}" for n in RECOVERY_CHUNKS} <= set(figures)


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
    assert frechet_distance(truth, truth) == pytest.approx(0, abs=1e-6)
    near, far = frechet_distance(truth + 0.2, truth), frechet_distance(truth + 1.0, truth)
    assert 0 < near < far
    assert frechet_distance(0.5 * truth, truth) > 0.05


def test_similarity_is_over_the_frames_with_a_face() -> None:
    reference = np.ones(128, np.float32)
    seen = np.stack([reference, -reference, np.full(128, np.nan, np.float32)])
    assert similarity(seen, reference) == pytest.approx(0)
    assert similarity(seen[:1] * 3, reference) == pytest.approx(1)
    assert np.isnan(similarity(seen[2:], reference))


def comparison(mouth: float, pose: float) -> Comparison:
    measures = np.random.default_rng(0).normal(size=(50, 3))
    return Comparison(
        mouth_dynamics=mouth,
        pose_dynamics=pose,
        lid_dynamics=1.0,
        high_band=1.0,
        measures=measures,
        true_measures=measures,
        identity_ratio=0.95,
        winks=0.0,
    )


def test_half_and_double_motion_average_to_the_truth() -> None:
    figures = comparison_figures([comparison(0.5, 1.0), comparison(2.0, 1.0)])
    assert figures["dyn_mouth"] == pytest.approx(1.0)
    assert figures["dyn"] == pytest.approx(1.0)
    assert figures["frechet_distance"] == pytest.approx(0, abs=1e-6)
    low, high = comparison_intervals([comparison(0.5, 1.0), comparison(2.0, 1.0)], 0)["dyn_mouth"]
    assert low <= 1.0 <= high
