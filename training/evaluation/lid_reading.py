"""How far each lid of a picture is shut, by comparison: which of the puppet's own lids is it like?

A landmark detector tells an eye of thirty pixels so coarsely that the true frames themselves score
below 0.95 against what they were made from. This reads true frames at 0.99 and more.

Legend: N frames, V versions of them, H W pixels, L positions of a lid that are tried.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.training.codec_data import Puppet
from visavis.training.puppets.controls import INDEX

LIDS = [INDEX["blink_l"], INDEX["blink_r"]]
POSITIONS = np.linspace(0.0, 1.0, 9, dtype=np.float32)
# A pixel that shutting the lid changes by less, on a scale of 0 to 1, does not tell where it is.
LEAST_CHANGE = 0.05


class NoEyeError(ValueError):
    """Shutting a lid changes nothing in the picture."""


@torch.no_grad()
def read_lids(
    puppet: Puppet, controls: NDArray[np.float32], versions_VN3HW: Sequence[Tensor]
) -> NDArray[np.float32]:
    """Left and right lid, 0 open .. 1 shut, of frames in 0..1 made from `controls` [N, 15].

    All but the lids is taken from the controls, which `versions_VN3HW` share.

    Returns:
        float32 [V, N, 2].

    Raises:
        NoEyeError: there is no eye to read.
    """
    lids = np.empty((len(versions_VN3HW), len(controls), 2), np.float32)
    for number, row in enumerate(controls):
        for eye, control in enumerate(LIDS):
            tried = np.repeat(row[None], len(POSITIONS), axis=0)
            tried[:, control] = POSITIONS
            drawn = puppet.render(torch.from_numpy(puppet.basis.codes(tried)))
            tells = (drawn[-1] - drawn[0]).abs().amax(dim=0) > LEAST_CHANGE
            if not tells.any():
                raise NoEyeError(f"{puppet.name}: the picture shows no eye that {eye=} could be")
            for version, frames in enumerate(versions_VN3HW):
                lids[version, number, eye] = _nearest(drawn[:, :, tells], frames[number][:, tells])
    return lids


def _nearest(drawn_L3P: Tensor, pixels_3P: Tensor) -> float:
    """The position, between those tried, of the drawing that is most like the pixels."""
    errors = (drawn_L3P - pixels_3P).square().mean(dim=(1, 2)).tolist()
    best = int(np.argmin(errors))
    position = float(best)
    if 0 < best < len(errors) - 1:
        before, least, after = errors[best - 1 : best + 2]
        bend = before - 2 * least + after
        # The lowest point of the parabola through the three.
        position += 0.5 * (before - after) / bend if bend > 0 else 0.0
    return position / (len(errors) - 1)
