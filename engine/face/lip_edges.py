"""Lips that teeth part: the face mesh draws many smiles shut, and their colours tell better.

Lips are red and teeth are not: down a column through a smile, redness (a* of CIE Lab) rises into
the upper lip, falls to the teeth and rises again into the lower lip.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# How far above and below the mesh's line lips are looked for, px of the framed portrait, and how
# far from it the teeth may begin.
REACH: Final = 9
NEAR: Final = 3
# Teeth have at most so much of the lips' redness, and at least so much less of it; gloss has more.
MOST_REDNESS: Final = 0.55
LEAST_FALL: Final = 9.0
# Share of the columns in the mouth's middle half that have to show teeth.
MOST_COLUMNS: Final = 0.7
# The lips part within so many px of a corner.
CORNER: Final = 4


def parted_lips(
    image: NDArray[np.uint8], line: Array, left: int, right: int
) -> tuple[Array, Array] | None:
    """The lower edge of the upper lip and the upper edge of the lower one, where teeth show.

    Args:
        image: uint8 RGB [H, W, 3].
        line: where the mesh has the lips meet, y for every x [W].
        left, right: x of the mouth's corners.

    Returns:
        Two lines [W], the same outside of the mouth; None for a mouth that shows no teeth.
    """
    height, width = image.shape[:2]
    columns = np.arange(max(left + 1, 0), min(right, width - 1))
    if len(columns) < 8:
        return None
    lab = cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2LAB)
    redness = cv2.GaussianBlur(lab[..., 1], (0, 0), 0.6)
    centres = np.round(line[columns]).astype(int)
    rows = np.clip(centres[:, None] + np.arange(-REACH, REACH + 1), 0, height - 1)
    profiles = redness[rows, columns[:, None]]
    edges = np.array([_edges(profile) for profile in profiles], np.float32)
    shown = np.isfinite(edges[:, 0])
    middle = np.abs(columns - 0.5 * (left + right)) < 0.25 * (right - left)
    if shown[middle].mean() < MOST_COLUMNS:
        return None
    upper, lower = (_smooth(edges[:, side], shown, centres, line[columns]) for side in (0, 1))
    lines = line.copy(), line.copy()
    lines[0][columns], lines[1][columns] = upper, np.maximum(lower, upper)
    return lines


def _edges(redness: Array) -> tuple[float, float]:
    """Where the teeth of one column begin and end, from its middle; NaN where it shows none."""
    near = slice(REACH - NEAR, REACH + NEAR + 1)
    least = REACH - NEAR + int(redness[near].argmin())
    above, below = redness[:least], redness[least + 1 :]
    lips = min(float(above.max()), float(below.max()))
    value = float(redness[least])
    if value > MOST_REDNESS * lips or lips - value < LEAST_FALL:
        return float("nan"), float("nan")
    first = int(above.argmax())
    last = least + 1 + int(below.argmax())
    begin = _crossing(redness, least, first, 0.5 * (value + float(redness[first])))
    end = _crossing(redness, least, last, 0.5 * (value + float(redness[last])))
    return begin - REACH, end - REACH


def _crossing(values: Array, start: int, stop: int, level: float) -> float:
    """Where `values`, gone through from `start` to `stop`, first reach `level`."""
    step = 1 if stop > start else -1
    for place in range(start, stop, step):
        here, there = float(values[place]), float(values[place + step])
        if here < level <= there:
            return place + step * (level - here) / (there - here)
    return float(stop)


def _smooth(offsets: Array, shown: NDArray[np.bool_], centres: Array, line: Array) -> Array:
    """A line through the columns that show teeth, at the lips' own line in the mouth's corners."""
    place = np.arange(len(offsets))
    given = np.concatenate([[0], place[shown], [len(offsets) - 1]])
    values = np.concatenate([[0.0], (centres + offsets - line)[shown], [0.0]])
    whole = np.interp(place, given, values).astype(np.float32)
    whole = cv2.GaussianBlur(cv2.medianBlur(whole[None], 5), (0, 0), 1.2)[0]
    smoothed: Array = (line + whole * corner_fade(len(place))).astype(np.float32)
    return smoothed


def corner_fade(count: int) -> NDArray[np.float64]:
    """How much of a change of the lips' line counts in each of `count` columns from corner to
    corner: nothing in the corners themselves."""
    place = np.arange(count)
    return np.minimum(1, np.minimum(place, place[::-1]) / CORNER)
