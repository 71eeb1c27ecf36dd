"""Is the mouth shut where nothing is said, and does nothing jump when speech begins (P18)?

Legend: N frames.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.training.codec_data import Puppet
from visavis.training.evaluation.recordings import PAUSE_DB, SHORTEST_PAUSE
from visavis.training.evaluation.round_trip import quantise, to_pictures
from visavis.training.evaluation.statistics import Series
from visavis.training.landmarks import IndependentLandmarker, mouth_opening
from visavis.training.puppets.controls import CONTROLS, INDEX

SHUT_GAP: Final = 0.01
# The opening that speech reaches now and then, in units of the widest jaw; measured on the clips.
WIDE_QUANTILE: Final = 0.95
_TURNS: Final = (-0.5, -0.25, 0.0, 0.25, 0.5)
_AROUND: Final = 2


@dataclass(frozen=True, slots=True)
class MouthRange:
    """Detected openings of one portrait's true mouth, shut and wide, in eye distances."""

    rest: float
    wide: float

    def share(self, opening: Series) -> Series:
        """Opening beyond rest in parts of the range; a mouth shut more tightly counts as shut."""
        share: Series = np.maximum(opening - self.rest, 0) / max(self.wide - self.rest, 1e-6)
        return share


def mouth_range(puppet: Puppet, landmarker: IndependentLandmarker, gap: float) -> MouthRange:
    """What the detector makes of the portrait's own mouth, shut and opened by `gap` (`lip_gap`).

    Looked at from five sides, as the detector's answer depends a little on the head's turn.
    """
    controls = np.zeros((2 * len(_TURNS), len(CONTROLS)), np.float32)
    controls[:, INDEX["yaw"]] = (*_TURNS, *_TURNS)
    controls[len(_TURNS) :, INDEX["jaw"]] = min(gap, 1.0)
    codes = torch.from_numpy(puppet.basis.codes(controls))
    opening = mouth_opening(landmarker.detect(to_pictures(quantise(puppet.render(codes)))))
    shut, wide = opening[: len(_TURNS)], opening[len(_TURNS) :]
    return MouthRange(float(np.median(shut)), float(np.median(wide)))


def onsets(level: Series) -> NDArray[np.int64]:
    """Frames in which sound begins after at least `SHORTEST_PAUSE` quiet ones; `level` [N] in dB
    below the loudest."""
    quiet = level <= PAUSE_DB
    return np.array(
        [
            frame
            for frame in range(SHORTEST_PAUSE, len(level))
            if not quiet[frame] and quiet[frame - SHORTEST_PAUSE : frame].all()
        ],
        np.int64,
    )


def onset_jump_ratio(differences: Series, starts: NDArray[np.int64]) -> float:
    """The largest change within two frames of an onset, over the median change; mean of the onsets.

    `differences` [N - 1] is the change into frames 1 .. N - 1. NaN without onsets.
    """
    jumps = [
        differences[max(start - 1 - _AROUND, 0) : start + _AROUND].max()
        for start in starts
        if start - 1 - _AROUND < len(differences)
    ]
    usual = max(float(np.median(differences)), 1e-6)
    return float(np.mean(jumps)) / usual if jumps else float("nan")
