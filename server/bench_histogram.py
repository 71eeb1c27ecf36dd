"""HDR histograms that refuse to answer for what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

# A percentile is printed only if at least one value in so many lies beyond it: p95 of nineteen
# values would be their maximum under another name.
NEEDED = {50: 5, 95: 20, 99: 100}
_LONGEST = 3600 * 1_000_000
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Percentiles:
    """p50, p95 and p99 in the unit of what was recorded; None with a reason for what is not known.

    `reasons` names each missing percentile and says how many values there are and are needed.
    """

    count: int
    values: dict[str, float | None]
    reasons: dict[str, str]

    @classmethod
    def withheld(cls, reason: str) -> Percentiles:
        """None of them is told, for this reason."""
        names = [f"p{percent}" for percent in NEEDED]
        return cls(0, dict.fromkeys(names), dict.fromkeys(names, reason))


class Histogram:
    """Values with three significant digits, each recorded once and none of them thinned out.

    scale: recorded unit over the unit of the values (1e6 for seconds: they are kept as µs).
    Values below one recorded unit count as one half of it, those above an hour of µs as that.
    """

    def __init__(self, scale: float = 1e6) -> None:
        self._scale = scale
        self._inner = HdrHistogram(1, _LONGEST, _DIGITS)
        self._zeros = 0

    def record(self, value: float) -> None:
        """Add one value. Raises ValueError for one that is negative or not a number."""
        if not value >= 0:
            raise ValueError(f"value={value}: a histogram holds numbers from 0 on")
        units = round(value * self._scale)
        if units == 0:
            self._zeros += 1
        else:
            self._inner.record_value(min(units, _LONGEST))

    def add(self, other: Histogram) -> None:
        """Add all values of another histogram of the same scale."""
        self._inner.add(other._inner)
        self._zeros += other._zeros

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._zeros + int(self._inner.get_total_count())

    def quantile(self, percent: float) -> float:
        """The smallest value that `percent` of all do not exceed. Raises ValueError when empty."""
        if not self.count:
            raise ValueError("the histogram is empty: nothing was measured")
        rank = max(1, math.ceil(percent / 100 * self.count - 1e-9))
        if rank <= self._zeros:
            return 0.0
        of_inner = 100 * (rank - self._zeros) / (self.count - self._zeros)
        return float(self._inner.get_value_at_percentile(of_inner)) / self._scale

    def maximum(self) -> float:
        """The largest value. Raises ValueError when there is none."""
        return self.quantile(100)

    def percentiles(self) -> Percentiles:
        """What can be said honestly."""
        values: dict[str, float | None] = {}
        reasons = {}
        for percent, needed in NEEDED.items():
            name = f"p{percent}"
            if self.count >= needed:
                values[name] = self.quantile(percent)
            else:
                values[name] = None
                reasons[name] = f"{self.count} values were measured, {name} needs {needed}"
        return Percentiles(self.count, values, reasons)

    def curve(self) -> Iterator[tuple[float, float]]:
        """(percent, value) of every value that occurs, up to 100; nothing beyond what was seen."""
        total = self.count
        seen = self._zeros
        if seen:
            yield 100 * seen / total, 0.0
        for item in self._inner.get_recorded_iterator():
            seen += int(item.count_added_in_this_iter_step)
            yield 100 * seen / total, float(item.value_iterated_to) / self._scale
