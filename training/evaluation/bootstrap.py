"""How sure a figure is: intervals over talks and seeds.

A figure is computed anew from talks drawn with replacement, and of each drawn talk from its seeds
drawn with replacement: what one portrait with one voice does under three seeds is not three talks.
Of fewer than `LEAST_CLUSTERS` talks nothing is drawn: how two of them differ tells no interval.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np

Interval = tuple[float, float]
Figures = Mapping[str, float]
T = TypeVar("T")

DRAWS: Final = 1000
LEAST_CLUSTERS: Final = 4
_QUANTILES: Final = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Sample(Generic[T]):
    """What was measured of one cluster (a talk, a portrait, a recording) under one seed."""

    cluster: str
    seed: int
    value: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures by name, their 95 % intervals where there are enough clusters, the number of clusters
    that each is of, and the figures of every seed alone."""

    figures: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    clusters: dict[str, int] = field(default_factory=dict)
    seeds: dict[int, dict[str, float]] = field(default_factory=dict)


def measured(
    samples: Sequence[Sample[T]],
    figures: Callable[[Sequence[T]], Figures],
    *,
    draws: int = DRAWS,
) -> Measured:
    """The figures of all samples, with intervals; `figures` takes any non-empty number of values.

    A cluster counts for the figures that it has by itself.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("samples=[]: nothing was measured, so there is no figure of it")
    groups = _clusters(samples)
    counts = Counter(name for group in groups for name in _finite(figures(group)))
    enough = {name for name, count in counts.items() if count >= LEAST_CLUSTERS}
    drawn = clustered_intervals(groups, figures, draws=draws) if enough else {}
    return Measured(
        figures=dict(figures([sample.value for sample in samples])),
        intervals={name: interval for name, interval in drawn.items() if name in enough},
        clusters=dict(counts),
        seeds={
            seed: dict(figures([sample.value for sample in samples if sample.seed == seed]))
            for seed in sorted({sample.seed for sample in samples})
        },
    )


def _clusters(samples: Sequence[Sample[T]]) -> list[list[T]]:
    """The values of each cluster, of all its seeds."""
    clusters: dict[str, list[T]] = {}
    for sample in samples:
        clusters.setdefault(sample.cluster, []).append(sample.value)
    return list(clusters.values())


def _finite(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def clustered_intervals(
    groups: Sequence[Sequence[T]],
    figures: Callable[[Sequence[T]], Figures],
    *,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """95 % percentile intervals, from the values of each cluster; a figure that a draw lacks, or
    that is NaN there, is left out of that draw."""
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {}
    for _ in range(draws):
        values: list[T] = []
        for group in rng.integers(len(groups), size=len(groups)):
            members = groups[group]
            values += [members[i] for i in rng.integers(len(members), size=len(members))]
        for name, value in _finite(figures(values)).items():
            drawn.setdefault(name, []).append(value)
    intervals = {}
    for name, found in drawn.items():
        low, high = np.quantile(found, _QUANTILES)
        intervals[name] = (float(low), float(high))
    return intervals


def joined(parts: Iterable[Measured]) -> Measured:
    """Figures of several parts together."""
    figures: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    clusters: dict[str, int] = {}
    seeds: dict[int, dict[str, float]] = {}
    for part in parts:
        figures |= part.figures
        intervals |= part.intervals
        clusters |= part.clusters
        for seed, own in part.seeds.items():
            seeds.setdefault(seed, {}).update(own)
    return Measured(figures=figures, intervals=intervals, clusters=clusters, seeds=seeds)
