"""Is it the same person? On made-up embeddings that have as much in common as the network's."""

import numpy as np
import pytest

from visavis.training.evaluation.report import BARS
from visavis.training.identity import (
    EMBEDDING,
    SAME_PERSON,
    Embeddings,
    identity_ratio,
    same_person,
    similarity,
)

BAR = BARS["identity_ratio"]


def people(count: int) -> Embeddings:
    """Embeddings of different people, whose cosines are about 0.83 as those of portraits are."""
    rng = np.random.default_rng(0)
    common, own = (rng.normal(size=(n, EMBEDDING)) for n in (1, count))
    common /= np.linalg.norm(common)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    return np.asarray(1.4 * (0.83**0.5 * common + 0.17**0.5 * own), np.float32)


def frames_of(person: Embeddings, count: int = 6) -> Embeddings:
    """The same person in other poses."""
    noise = np.random.default_rng(1).normal(0, 0.15 / EMBEDDING**0.5, (count, EMBEDDING))
    return np.asarray(person + noise, np.float32)


def test_strangers_are_alike_and_yet_fail_the_bar() -> None:
    portrait, other, *rest = people(20)
    strangers = np.stack([other, *rest])
    truth, between = (similarity(e, portrait) for e in (frames_of(portrait), strangers))
    seen = similarity(frames_of(other), portrait)
    # What the bar of 0.9 would hardly notice in the similarity alone.
    assert seen / truth > 0.8
    assert abs(identity_ratio(seen, truth=truth, strangers=between)) < 0.3
    assert not BAR.met(identity_ratio(seen, truth=truth, strangers=between))
    own = similarity(frames_of(portrait, 9), portrait)
    assert identity_ratio(own, truth=truth, strangers=between) == pytest.approx(1, abs=0.03)
    assert BAR.met(identity_ratio(own, truth=truth, strangers=between))


def test_half_way_to_somebody_else_fails_too() -> None:
    portrait, other, *rest = people(20)
    truth = similarity(frames_of(portrait), portrait)
    strangers = similarity(np.stack([other, *rest]), portrait)
    blend = similarity(frames_of(0.5 * portrait + 0.5 * other), portrait)
    ratio = identity_ratio(blend, truth=truth, strangers=strangers)
    assert 0.3 < ratio < 0.9


def test_the_scale_needs_a_truth_that_is_like_its_portrait() -> None:
    assert np.isnan(identity_ratio(0.9, truth=0.8, strangers=0.8))
    assert np.isnan(identity_ratio(0.9, truth=float("nan"), strangers=0.8))


def test_a_film_without_a_face_is_a_strangers() -> None:
    assert identity_ratio(float("nan"), truth=1.0, strangers=0.8) == 0


def test_frames_are_one_persons_by_distance() -> None:
    portrait, other = people(2)
    assert np.linalg.norm(portrait - other) > SAME_PERSON
    nobody = np.full((1, EMBEDDING), np.nan, np.float32)
    seen = np.concatenate([frames_of(portrait, 2), frames_of(other, 1), nobody])
    assert same_person(seen, portrait) == pytest.approx(0.5)
