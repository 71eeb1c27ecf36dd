"""Files of speech through PyAV."""

from pathlib import Path

import av
import numpy as np
import soxr  # type: ignore[import-untyped]
from av.audio.resampler import AudioResampler
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


def read_recording(path: Path, rate: int) -> NDArray[np.float32]:
    """The first audio track of any file, mixed down to mono, in -1..1 at `rate` Hz, float32
    `[samples]`.

    Raises ValueError, which names the file, when it has no sound.
    """
    # In 16 bits channels are averaged; as floats they would be added up beyond full scale.
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    blocks: list[NDArray[np.int16]] = []
    with av.open(str(path)) as container:
        for stream in container.streams.audio[:1]:
            for frame in (*container.decode(stream), None):
                blocks += [
                    part.to_ndarray().ravel().astype(np.int16) for part in resampler.resample(frame)
                ]
    if not blocks:
        raise ValueError(f"recording={path} holds no sound; give a file with an audio track")
    return np.concatenate(blocks).astype(np.float32) / np.float32(32767.0)
