"""The figures of talks beside their truth, of any choice of them."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from visavis.training.evaluation.against_truth import PARTS, Comparison
from visavis.training.evaluation.frechet import Moments, frechet_distance
from visavis.training.evaluation.statistics import best_lag

# Ratios whose half and double average to one.
_GEOMETRIC: Final = (
    "dyn_mouth", "dyn_pose", "dyn_lids", "dyn_high_band", "head_acceleration_ratio",
    "onset_jump_over_truth",
)  # fmt: skip


def talk_figures(talks: Sequence[Comparison]) -> dict[str, float]:
    """Means over the talks that have a figure; `dyn` is the geometric mean of mouth and pose.

    `sync_r` and `sync_lag_frames` have one lag for all; `frechet_distance` pools all frames, and
    once more those of the talks' first two chunks, the next three, and the rest.
    """
    figures = {}
    names = dict.fromkeys(name for talk in talks for name in talk.scalars)
    for name in names:
        found = np.array([talk.scalars[name] for talk in talks if name in talk.scalars])
        found = found[np.isfinite(found)]
        if len(found):
            figures[name] = _geometric(found) if name in _GEOMETRIC else float(np.mean(found))
    lags = [talk.lags for talk in talks if talk.lags is not None]
    if lags:
        sync = best_lag(lags)
        figures["sync_r"], figures["sync_lag_frames"] = sync.r, float(sync.lag_frames)
        figures["dyn"] = float(np.sqrt(figures["dyn_mouth"] * figures["dyn_pose"]))
    for part in ("", *PARTS):
        pairs = [talk.measures[part] for talk in talks if part in talk.measures]
        if pairs:
            generated, true = (Moments.pooled(column) for column in zip(*pairs, strict=True))
            name = f"frechet_distance_{part}" if part else "frechet_distance"
            figures[name] = frechet_distance(generated, true)
    return figures


def _geometric(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6)))))
