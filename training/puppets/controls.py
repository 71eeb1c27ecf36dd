"""The controls that drive a photo puppet, one row a frame at 25 fps.

Speech synthesis writes them, the puppet generator reads them. Ranges:

| control | range | meaning |
|---|---|---|
| jaw | 0..1 | jaw drop, lower lip and chin go down; 1 = wide open |
| upper_lip | 0..1 | upper lip raised (teeth show) |
| lower_lip | -1..1 | lower lip down (+) or up to the teeth (-, as in f, v) |
| wide | -1..1 | rounded and narrow (-, oo) .. spread (+, ee) |
| press | 0..1 | lips pressed together (m, b, p) |
| smile | -1..1 | mouth corners, slow |
| brow | -1..1 | both brows |
| blink_l, blink_r | 0..1 | eyelids, 1 = shut |
| yaw, pitch, roll, tx, ty, zoom | -1..1 | head motion; 1 is the largest that a puppet makes |
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

CONTROLS: Final = (
    "jaw",
    "upper_lip",
    "lower_lip",
    "wide",
    "press",
    "smile",
    "brow",
    "blink_l",
    "blink_r",
    "yaw",
    "pitch",
    "roll",
    "tx",
    "ty",
    "zoom",
)
INDEX: Final = {name: i for i, name in enumerate(CONTROLS)}

# Lip gap at the mouth's centre, in units of the widest opening (jaw = 1).
GAP_WEIGHTS: Final = {"jaw": 1.0, "upper_lip": 0.18, "lower_lip": 0.22, "press": -0.25}


def lip_gap(controls: NDArray[np.float32]) -> NDArray[np.float32]:
    """Opening between the inner lips, 0 (shut) .. about 1.4, of controls [frames, 15]."""
    gap = sum(weight * controls[..., INDEX[name]] for name, weight in GAP_WEIGHTS.items())
    return np.maximum(gap, 0.0).astype(np.float32)
