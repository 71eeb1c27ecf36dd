"""Figures, intervals and plots of the comparisons and the long roll-outs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np

from visavis.training.evaluation.against_truth import Comparison, frechet_distance
from visavis.training.evaluation.drift import NOTICEABLE, Drift
from visavis.training.evaluation.stability import RECOVERY_CHUNKS, Recovery

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_BOOTSTRAPS: Final = 1000


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6)))))


def _dynamics(comparisons: Sequence[Comparison]) -> float:
    return _geometric([c.dynamics for c in comparisons])


_MEASURES: Final[dict[str, Callable[[Sequence[Comparison]], float]]] = {
    "dyn": _dynamics,
    "dyn_mouth": lambda cs: _geometric([c.mouth_dynamics for c in cs]),
    "dyn_pose": lambda cs: _geometric([c.pose_dynamics for c in cs]),
    "dyn_lids": lambda cs: _geometric([c.lid_dynamics for c in cs]),
    "dyn_high_band": lambda cs: _geometric([c.high_band for c in cs]),
    "identity_ratio": lambda cs: float(np.nanmean([c.identity_ratio for c in cs])),
    "winks": lambda cs: float(np.mean([c.winks for c in cs])),
}


def comparison_figures(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Figures of talks against their truth; ratios are averaged as geometric means."""
    figures = {name: measure(comparisons) for name, measure in _MEASURES.items()}
    figures["frechet_distance"] = frechet_distance(
        np.concatenate([c.measures for c in comparisons]),
        np.concatenate([c.true_measures for c in comparisons]),
    )
    return figures


def comparison_intervals(
    comparisons: Sequence[Comparison], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over the talks."""
    rng = np.random.default_rng(seed)
    intervals = {}
    for name, measure in _MEASURES.items():
        draws = [
            measure([comparisons[i] for i in rng.integers(len(comparisons), size=len(comparisons))])
            for _ in range(_BOOTSTRAPS)
        ]
        low, high = np.quantile(draws, (0.025, 0.975))
        intervals[name] = (float(low), float(high))
    return intervals


def stability_figures(drift: Drift, recovery: Recovery) -> dict[str, float]:
    """DRIFT at every checkpoint and over the first, COLLAPSE at the last, RECOVER (the worst
    disturbance, averaged over sessions)."""
    chunks = list(drift.factors)
    figures = {f"drift_{n}": float(np.mean(drift.value(n))) for n in chunks}
    figures |= {f"drift_ratio_{n}": drift.ratio(n) for n in chunks[1:]}
    figures["collapsed"] = drift.collapsed(chunks[-1])
    for column, chunk in enumerate(RECOVERY_CHUNKS):
        figures[f"recover_{chunk}"] = max(
            float(np.mean(rows[:, column])) for rows in recovery.residual.values()
        )
    return figures


def plot_stability(drift: Drift, recovery: Recovery, path: Path) -> None:
    """Drift by factor over chunks, and what is left of a disturbance."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    chunks = list(drift.factors)
    for column, name in enumerate(NOTICEABLE):
        left.plot(chunks, [drift.factors[n][:, column].mean() for n in chunks], "o-", label=name)
    left.plot(chunks, [drift.value(n).mean() for n in chunks], "ko-", lw=2, label="DRIFT")
    left.set(xscale="log", xlabel="chunk", ylabel="in units of the just noticeable", ylim=(0, None))
    left.set_title("Drift from the portrait")
    left.legend(fontsize=8)
    for name, rows in recovery.residual.items():
        right.plot((0, *RECOVERY_CHUNKS), [1.0, *rows.mean(axis=0)], "o-", label=name)
    right.axhline(0.1, color="0.6", ls=":")
    right.set(xlabel="chunks after the disturbance", ylabel="share left", ylim=(0, None))
    right.set_title("Recovery from disturbed motion frames")
    right.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
