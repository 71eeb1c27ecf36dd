"""FLAC files of mono speech through PyAV."""

from pathlib import Path

import av
import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

_BLOCK = 4096


def write_flac(path: Path, pcm: NDArray[np.float32], rate: int) -> None:
    """Write float32 `[samples]` in -1..1 as 16-bit mono."""
    samples = np.round(np.clip(pcm, -1.0, 1.0) * 32767.0).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate)
        stream.layout = "mono"
        stream.format = "s16"
        for start in range(0, len(samples), _BLOCK):
            block = np.ascontiguousarray(samples[None, start : start + _BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_flac(path: Path, rate: int) -> NDArray[np.float32]:
    """Samples of a mono file in -1..1 at `rate` Hz, float32 `[samples]`."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray().ravel() for frame in container.decode(stream)]
        found = stream.rate
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    pcm = samples.astype(np.float32) / np.float32(32767.0)
    if found != rate:
        pcm = soxr.resample(pcm, found, rate)
    return np.asarray(pcm, np.float32)
