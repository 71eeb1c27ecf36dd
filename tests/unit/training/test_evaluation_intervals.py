"""Intervals of figures over talks and seeds."""

from collections.abc import Sequence

import numpy as np
import pytest

from visavis.training.evaluation.bootstrap import (
    LEAST_CLUSTERS,
    Measured,
    Sample,
    joined,
    measured,
)


def mean(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values))}


def samples(talks: int, seeds: int, *, talk: float, seed: float) -> list[Sample[float]]:
    """Values around nought that spread by so much from talk to talk and from seed to seed."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(talks):
        level = rng.normal(0, talk)
        found += [Sample(str(number), s, level + rng.normal(0, seed)) for s in range(seeds)]
    return found


def width(found: Measured) -> float:
    low, high = found.intervals["mean"]
    return high - low


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(60):
        talks = rng.normal(0, 1, size=20)
        rows = [
            Sample(str(number), seed, float(level + rng.normal(0, 0.5)))
            for number, level in enumerate(talks)
            for seed in range(3)
        ]
        low, high = measured(rows, mean, draws=200).intervals["mean"]
        covered.append(low <= 0 <= high)
    assert np.mean(covered) >= 0.85


def test_more_seeds_of_the_same_talks_are_not_more_talks() -> None:
    few = width(measured(samples(12, 3, talk=1.0, seed=0.0), mean))
    many = width(measured(samples(12, 30, talk=1.0, seed=0.0), mean))
    assert many == pytest.approx(few, rel=0.25)
    assert width(measured(samples(120, 3, talk=1.0, seed=0.0), mean)) < 0.5 * few


def test_seeds_alone_make_an_interval_too() -> None:
    assert width(measured(samples(4, 5, talk=0.0, seed=1.0), mean)) > 0.3
    assert width(measured(samples(4, 2, talk=0.0, seed=0.0), mean)) == 0


def test_every_seed_has_its_own_figures() -> None:
    rows = [Sample("a", 1, 1.0), Sample("a", 2, 2.0), Sample("b", 1, 3.0), Sample("b", 2, 6.0)]
    found = measured(rows, mean)
    assert found.figures == {"mean": 3.0}
    assert found.seeds == {1: {"mean": 2.0}, 2: {"mean": 4.0}}


def test_a_figure_that_some_draws_lack_is_that_of_the_others() -> None:
    def speaking(values: Sequence[float]) -> dict[str, float]:
        spoken = [value for value in values if value > 0]
        return {"speech": float(np.mean(spoken))} if spoken else {}

    rows = [Sample(name, 1, 2.0) for name in "abcd"]
    rows += [Sample(name, 1, 0.0) for name in "efghijklmnop"]
    found = measured(rows, speaking)
    assert found.intervals == {"speech": (2.0, 2.0)}
    assert found.clusters == {"speech": 4}


def test_too_few_talks_tell_no_interval_but_how_many_they_are() -> None:
    for talks in (1, 2, LEAST_CLUSTERS - 1):
        found = measured(samples(talks, 3, talk=1.0, seed=1.0), mean)
        assert found.intervals == {}
        assert found.clusters == {"mean": talks}
    assert set(measured(samples(LEAST_CLUSTERS, 1, talk=1.0, seed=0.0), mean).intervals) == {"mean"}


def test_a_figure_of_one_talk_among_many_has_no_interval() -> None:
    def one_is_silent(values: Sequence[float]) -> dict[str, float]:
        silent = [value for value in values if value < -90]
        return mean(values) | ({"silent": float(np.mean(silent))} if silent else {})

    rows = [*samples(6, 3, talk=1.0, seed=1.0), *(Sample("w", s, -99.0 - s) for s in range(3))]
    found = measured(rows, one_is_silent)
    assert found.figures["silent"] == -100
    assert found.clusters == {"mean": 7, "silent": 1}
    assert set(found.intervals) == {"mean"}


def test_parts_are_joined_seed_by_seed() -> None:
    first = Measured(
        figures={"a": 1.0},
        intervals={"a": (0.0, 2.0)},
        clusters={"a": 5},
        seeds={1: {"a": 1.0}},
    )
    second = Measured(figures={"b": 2.0}, clusters={"b": 1}, seeds={1: {"b": 2.0}, 2: {"b": 3.0}})
    both = joined([first, second])
    assert both.figures == {"a": 1.0, "b": 2.0}
    assert both.intervals == {"a": (0.0, 2.0)}
    assert both.clusters == {"a": 5, "b": 1}
    assert both.seeds == {1: {"a": 1.0, "b": 2.0}, 2: {"b": 3.0}}


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        measured([], mean)
