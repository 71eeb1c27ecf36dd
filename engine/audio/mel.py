"""Causal log-mel features of the embedded model: 16 kHz speech in, one `[4, 64]` block a frame out.

Column j (10 ms each) looks at the samples `(j + 1) * 160 - 400 .. (j + 1) * 160`: its window *ends*
with its hop, so a column is final the moment its last sample arrives, and the stream before its
first sample is silence. Four columns make one video frame of 25 fps. Streaming and whole-utterance
extraction give bit-identical numbers, so training and serving see the same features.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
FPS = 25
HOP = 160
WINDOW = 400
N_FFT = 512
MEL_BINS = 64
COLUMNS_PER_FRAME = 4
SAMPLES_PER_FRAME = HOP * COLUMNS_PER_FRAME
MEL_LOW_HZ = 50.0
MEL_HIGH_HZ = 7600.0

# Rounding noise of 16-bit audio stays below the floor, so digital silence is one constant.
ENERGY_FLOOR = 1e-6
# Speech at everyday level has a log10 energy of about -4 .. 2: centre it, scale it to -1 .. 2.
LOG_OFFSET = 2.0
LOG_SCALE = 0.5
SILENCE_LEVEL = float((np.log10(np.float32(ENERGY_FLOOR)) + LOG_OFFSET) * LOG_SCALE)

_BLOCK_FRAMES = 2048  # bounds the memory of a whole-recording call to some 30 MB


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz (200/3 Hz a mel), logarithmic above."""
    linear = hz * 3.0 / 200.0
    logarithmic = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, linear, logarithmic)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * 200.0 / 3.0
    logarithmic = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * np.log(6.4) / 27.0)
    return np.where(mel < 15.0, linear, logarithmic)


@cache
def _filter_bank() -> NDArray[np.float32]:
    """Triangles of peak 1, `[257, 64]`, equally spaced in mel between the two limits."""
    low, high = _hz_to_mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    edges = _mel_to_hz(np.linspace(low, high, MEL_BINS + 2))
    hz = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@cache
def _window() -> NDArray[np.float32]:
    phase = 2.0 * np.pi * np.arange(WINDOW) / WINDOW
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def _log_mel(padded: NDArray[np.float32]) -> NDArray[np.float32]:
    """`240 + 640 * n` samples -> `[n, 4, 64]`."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * _window(), N_FFT)
    power = spectrum.real**2 + spectrum.imag**2
    # One matrix product per frame: a product over all rows may round differently with their number.
    energy = power.reshape(-1, COLUMNS_PER_FRAME, power.shape[-1]) @ _filter_bank()
    scaled = (np.log10(np.maximum(energy, ENERGY_FLOOR)) + LOG_OFFSET) * LOG_SCALE
    return scaled.astype(np.float32)


class MelExtractor:
    """Streaming extractor: at most one frame of samples and 15 ms of past is all it holds."""

    CONTEXT = WINDOW - HOP  # samples of the past that a frame's first window reaches back to

    def __init__(self, context: NDArray[np.float32] | None = None) -> None:
        """`context`: the `CONTEXT` samples before the stream's first; silence if not given."""
        self._held = np.zeros(self.CONTEXT, np.float32) if context is None else context.copy()

    @property
    def pending_samples(self) -> int:
        """Samples received that do not fill a frame yet, 0..639."""
        return len(self._held) - self.CONTEXT

    def push(self, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take 16 kHz mono samples in -1..1, any number; return `[full frames, 4, 64]`."""
        samples = np.concatenate([self._held, np.asarray(pcm, np.float32)])
        frames = (len(samples) - self.CONTEXT) // SAMPLES_PER_FRAME
        features = np.empty((frames, COLUMNS_PER_FRAME, MEL_BINS), np.float32)
        for first in range(0, frames, _BLOCK_FRAMES):
            last = min(first + _BLOCK_FRAMES, frames)
            start, stop = first * SAMPLES_PER_FRAME, last * SAMPLES_PER_FRAME + self.CONTEXT
            features[first:last] = _log_mel(samples[start:stop])
        self._held = samples[frames * SAMPLES_PER_FRAME :].copy()
        return features

    def flush(self) -> NDArray[np.float32]:
        """Fill a started frame with silence; `[0 or 1, 4, 64]`."""
        missing = -self.pending_samples % SAMPLES_PER_FRAME
        return self.push(np.zeros(missing, np.float32))

    def copy(self) -> "MelExtractor":
        """An independent extractor in the same state."""
        twin = MelExtractor()
        twin._held = self._held.copy()
        return twin


def mel_features(pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of a whole recording: 16 kHz mono in -1..1 -> float32 `[ceil(n / 640), 4, 64]`.

    The last frame is filled with silence. Equal, bit for bit, to any slicing through
    `MelExtractor` followed by `flush`.

    Raises:
        ValueError: `pcm` is not one-dimensional.
    """
    if np.ndim(pcm) != 1:
        raise ValueError(
            f"pcm must be mono, [samples], got shape {np.shape(pcm)}; mix it down first"
        )
    extractor = MelExtractor()
    return np.concatenate([extractor.push(pcm), extractor.flush()])
