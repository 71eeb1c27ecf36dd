"""Plots of the long roll-outs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np

from visavis.engine.long_run import HandOver
from visavis.training.evaluation.drift import COLLAPSED, NOTICEABLE, Drift
from visavis.training.evaluation.stability import DISTURBANCES, RECOVERY_CHUNKS, Recovery

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_LABELS: Final[dict[HandOver, str]] = {
    "exact": "codes handed over exactly (as deployed)",
    "reencoded": "decoded and encoded again",
    "corrected": "the same, colours corrected",
}


def plot_stability(
    drifts: Mapping[HandOver, Sequence[Drift]], recoveries: Sequence[Recovery], path: Path
) -> None:
    """DRIFT over chunks for every way of handing over, its factors as deployed, and what is left of
    a disturbance; shades and thin lines are sessions."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2))
    for colour, (way, sessions) in enumerate(drifts.items()):
        chunks = list(sessions[0].factors)
        values = np.array([[drift.value(n) for n in chunks] for drift in sessions])
        left.plot(chunks, values.mean(axis=0), "o-", color=f"C{colour}", label=_LABELS[way])
        left.fill_between(
            chunks, values.min(axis=0), values.max(axis=0), color=f"C{colour}", alpha=0.15, lw=0
        )
    left.axhline(COLLAPSED, color="0.6", ls=":")
    left.set_title("Drift from the portrait")
    _chunk_axes(left)
    deployed = drifts["exact"]
    chunks = list(deployed[0].factors)
    for column, name in enumerate(NOTICEABLE):
        means = [np.mean([drift.factors[n][column] for drift in deployed]) for n in chunks]
        middle.plot(chunks, means, "o-", label=name)
    middle.set_title("Its factors, as deployed")
    _chunk_axes(middle)
    for name in DISTURBANCES:
        left_over = np.array([[1.0, *recovery.residual[name]] for recovery in recoveries])
        (line,) = right.plot((0, *RECOVERY_CHUNKS), left_over.mean(axis=0), "o-", label=name)
        right.plot((0, *RECOVERY_CHUNKS), left_over.T, color=line.get_color(), lw=0.4, alpha=0.5)
    right.axhline(0.1, color="0.6", ls=":")
    right.set(xlabel="chunks after the disturbance", ylabel="share left", ylim=(0, 1.05))
    right.set_title("Recovery from disturbed motion frames")
    right.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _chunk_axes(axes: Axes) -> None:
    axes.set(xscale="log", xlabel="chunk", ylabel="in units of the just noticeable", ylim=(0, None))
    axes.legend(fontsize=8)
