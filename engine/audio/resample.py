"""Any sample rate to the engine's 16 kHz, frame by frame, with soxr.

soxr's own stream object hides its state, so a session that holds one cannot be snapshotted or
rewound. Here every 40 ms frame is resampled on its own from its samples and a margin on both
sides that is longer than soxr's filter: the difference to resampling the whole recording is below
a tenth of a 16-bit step. The result is a pure function of the samples' positions, so it
does not depend on how they were sliced, and a few thousand input samples are all the state.
"""

from math import gcd

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from visavis.engine.plan import ENGINE_RATE, ENGINE_SAMPLES_PER_FRAME, FPS, check_rate

QUALITY = "HQ"
# In samples of the lower of the two rates; from 96 on nothing but rounding was left (measured).
_FILTER_MARGIN = 100
_FULL_SCALE = 32_768.0


class FrameResampler:
    """Frame j of 16 kHz audio from mono int16 at `rate`; holds no samples.

    Raises:
        PlanError: `rate` is not served.
    """

    def __init__(self, rate: int) -> None:
        self.rate = check_rate(rate)
        # Slices start where an input and an output sample coincide.
        self._period = rate // gcd(rate, ENGINE_RATE)
        self._margin = 0 if rate == ENGINE_RATE else -(-_FILTER_MARGIN * rate // min(rate, 16_000))

    def first_sample(self, frame: int) -> int:
        """Index of the earliest input sample that frame `frame` needs (at least 0)."""
        start = frame * self.rate // FPS - self._margin
        return max(0, start - start % self._period)

    def end_sample(self, frame: int) -> int:
        """How many input samples must have come before frame `frame` is final."""
        return -(-(frame + 1) * self.rate // FPS) + self._margin

    def ready_frames(self, samples: int) -> int:
        """Frames that are final after `samples` of an unfinished recording."""
        return max(0, (samples - self._margin) * FPS // self.rate)

    def frame(self, pcm: NDArray[np.int16], first_index: int, frame: int) -> NDArray[np.float32]:
        """Frame `frame` at 16 kHz: float32 [640] in -1..1.

        `pcm` starts with the recording's sample `first_index`, which must not come after
        `first_sample(frame)`; what lies beyond its end is silence.
        """
        start, end = self.first_sample(frame), self.end_sample(frame)
        needed = pcm[start - first_index : end - first_index].astype(np.float32) / _FULL_SCALE
        missing = end - start - len(needed)
        needed = np.pad(needed, (0, missing))
        if self.rate == ENGINE_RATE:
            return needed
        resampled = soxr.resample(needed, self.rate, ENGINE_RATE, quality=QUALITY)
        offset = frame * ENGINE_SAMPLES_PER_FRAME - start * ENGINE_RATE // self.rate
        audio = np.asarray(resampled[offset : offset + ENGINE_SAMPLES_PER_FRAME], np.float32)
        if missing:
            # The recording ends here: resampling it as a whole has no ringing after its end either.
            samples = first_index + len(pcm)
            length = (2 * samples * ENGINE_RATE + self.rate) // (2 * self.rate)
            audio[max(0, length - frame * ENGINE_SAMPLES_PER_FRAME) :] = 0
        return audio
