"""The picture of the long roll-outs, drawn from figures by name: their file can draw it again."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from numpy.typing import NDArray

from visavis.engine.long_run import HandOver
from visavis.training.evaluation.bootstrap import Interval
from visavis.training.evaluation.drift import NOTICEABLE, PREFIXES
from visavis.training.evaluation.report import BARS
from visavis.training.evaluation.stability import RECOVERY_CHUNKS

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Two of the ways differ by less than a line's width: markers, dashes and places tell them apart.
_LOOKS: Final[dict[HandOver, dict[str, Any]]] = {
    "exact": {
        "label": "codes handed over exactly (as deployed)",
        "color": "C0",
        "marker": "o",
        "ls": "-",
    },
    "reencoded": {
        "label": "drawn and encoded again",
        "color": "C1",
        "marker": "s",
        "ls": "-",
    },
    "corrected": {
        "label": "the same, colours corrected",
        "color": "C2",
        "marker": "^",
        "ls": "--",
        "mfc": "white",
    },
}
_ASIDE: Final = 1.08  # how far right of its place each way's points stand, on a scale of ratios
_KINDS: Final = ("v", "D", "P", "X")
_BAR_WIDTH: Final = 0.27
_LEAST_SHARE: Final = 1e-3  # a share of nought has no place on a scale of ratios


def plot_stability(
    figures: Mapping[str, float],
    intervals: Mapping[str, Interval],
    path: Path,
    *,
    kinds: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """DRIFT over chunks for every way of handing over, its factors at the last checkpoint, and what
    is left of a disturbance, with 95 % intervals where there are any.

    `figures` and `intervals` as the stability part gives and `visavis eval --json` writes them;
    `kinds`: what is left of each kind of disturbance after `RECOVERY_CHUNKS` [4], by its name.
    """
    chunks = sorted(int(n[1]) for name in figures if (n := re.fullmatch(r"drift_(\d+)", name)))
    ways = [way for way in _LOOKS if f"{PREFIXES[way]}drift_{chunks[0]}" in figures]
    plot, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4))
    for place, way in enumerate(ways):
        at = np.array(chunks) * _ASIDE**place
        names = [f"{PREFIXES[way]}drift_{n}" for n in chunks]
        _draw_curve(left, at, names, figures, intervals, _LOOKS[way])
        _draw_factors(middle, place, PREFIXES[way], chunks[-1], figures, intervals, _LOOKS[way])
    left.set(xscale="log", xlabel="chunk", ylabel="in units of the just noticeable")
    left.set(xticks=chunks, xticklabels=[str(n) for n in chunks], ylim=(0, None))
    left.minorticks_off()
    left.set_title("Drift from the portrait")
    middle.set_xticks(np.arange(len(NOTICEABLE)) + _BAR_WIDTH * (len(ways) - 1) / 2)
    middle.set(xticklabels=list(NOTICEABLE), ylabel="in units of the just noticeable")
    middle.set_title(f"Its factors at chunk {chunks[-1]}")
    _draw_recovery(right, figures, intervals, kinds or {})
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        columns = 2 if axes is right else 1
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=columns, frameon=False, fontsize=9
        )
    plot.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(plot)


def _draw_curve(
    axes: Axes,
    at: NDArray[Any],
    names: list[str],
    figures: Mapping[str, float],
    intervals: Mapping[str, Interval],
    look: Mapping[str, Any],
) -> None:
    axes.plot(at, [figures[name] for name in names], **look)
    if all(name in intervals for name in names):
        low, high = np.array([intervals[name] for name in names]).T
        axes.fill_between(at, low, high, color=look["color"], alpha=0.18, lw=0)


def _draw_factors(
    axes: Axes,
    place: int,
    prefix: str,
    chunk: int,
    figures: Mapping[str, float],
    intervals: Mapping[str, Interval],
    look: Mapping[str, Any],
) -> None:
    names = [f"{prefix}drift_{factor}_{chunk}" for factor in NOTICEABLE]
    values = np.array([figures[name] for name in names])
    at = np.arange(len(names)) + _BAR_WIDTH * place
    axes.bar(at, values, _BAR_WIDTH, color=look["color"], label=look["label"])
    known = [i for i, name in enumerate(names) if name in intervals]
    if known:
        ends = np.array([intervals[names[i]] for i in known]).T
        reach = np.abs(ends - values[known])
        axes.errorbar(at[known], values[known], reach, fmt="none", ecolor="0.3", capsize=3, lw=1)


def _draw_recovery(
    axes: Axes,
    figures: Mapping[str, float],
    intervals: Mapping[str, Interval],
    kinds: Mapping[str, NDArray[np.float64]],
) -> None:
    at = (0, *RECOVERY_CHUNKS)
    names = [f"recover_{chunk}" for chunk in RECOVERY_CHUNKS]
    values = [1.0, *(figures[name] for name in names)]
    axes.plot(at, values, "o-", color="k", lw=2, label="of the worst kind")
    if all(name in intervals for name in names):
        low, high = np.array([(1.0, 1.0), *(intervals[name] for name in names)]).T
        axes.fill_between(at, low, high, color="k", alpha=0.12, lw=0)
    for number, (name, left) in enumerate(kinds.items()):
        shares = np.maximum([1.0, *left], _LEAST_SHARE)
        axes.plot(at, shares, color=f"C{number}", marker=_KINDS[number % 4], lw=1, label=name)
    most = BARS["recover_5"].most
    if most is not None:
        axes.plot([5], [most], "_", color="tab:red", ms=18, mew=2, label=f"bar: at most {most:g}")
    axes.set(yscale="log", xlabel="chunks after the disturbance", ylabel="share left")
    axes.set_title("Recovery from disturbed motion frames")
