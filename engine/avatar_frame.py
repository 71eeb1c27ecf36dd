"""What a session gives: a picture and the sound that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """A picture and the sound that belongs to it.

    `index` counts all frames of the session, idle ones too, so frame `index` starts at `index / 25`
    seconds of the session's timeline. `pixels` is uint8 RGB [H, W, 3]. `audio` holds the caller's
    own int16 samples of these 40 ms at the caller's rate; the last frame of an utterance may carry
    fewer, and a frame of idling carries silence. `speech` tells the two apart; `last` marks the
    last frame of an utterance. `pose` is the codec's own form of the picture, by which the session
    goes on from it (`AvatarSession.replay`).
    """

    index: int
    pixels: NDArray[np.uint8]
    audio: NDArray[np.int16]
    speech: bool
    last: bool
    pose: Tensor | None = field(default=None, repr=False, compare=False)
