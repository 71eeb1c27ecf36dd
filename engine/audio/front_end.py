"""From the 16 kHz timeline to the features of a chunk, whatever the model listens with.

A front end holds no session state: it is a function of the new samples and a fixed stretch of the
past, so that the past (plain samples) is all a session has to carry, copy and rewind.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.mel import COLUMNS_PER_FRAME, MEL_BINS, MelExtractor
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, MOTION_FRAMES

WINDOW_REACH = 2  # frames on either side of the centre of an audio window
HISTORY_FRAMES = MOTION_FRAMES + WINDOW_REACH


class AudioFrontEnd(Protocol):
    """Turns sound into one block of features per video frame."""

    @property
    def past_samples(self) -> int:
        """How much of the 16 kHz timeline before the chunk's new samples it wants to see."""
        ...

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(layers, channels) of a frame."""
        ...

    def features(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of the frames a chunk needs, float32 [7 + n, layers, channels].

        `past` holds `past_samples`, `new` 640 * n samples in -1..1. The 7 are the chunk's five
        motion frames and the two before them, which their windows reach back to.
        """
        ...


@runtime_checkable
class EarlyFrontEnd(Protocol):
    """A front end that can hear a chunk's sound while an earlier chunk is made."""

    def begin(
        self, past: NDArray[np.float32], new: NDArray[np.float32]
    ) -> Callable[[], NDArray[np.float32]] | None:
        """Start on `features(past, new)`; what is returned waits for the same numbers, to the bit.

        None: there is nothing to gain.
        """
        ...


class MelFrontEnd:
    """Causal log-mel, of models without a speech encoder; of any longer past as well."""

    @property
    def past_samples(self) -> int:
        return HISTORY_FRAMES * ENGINE_SAMPLES_PER_FRAME + MelExtractor.CONTEXT

    @property
    def feature_shape(self) -> tuple[int, int]:
        return COLUMNS_PER_FRAME, MEL_BINS

    def features(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        context = past[: MelExtractor.CONTEXT]
        rest = past[MelExtractor.CONTEXT :]
        return MelExtractor(context).push(np.concatenate([rest, new]))
