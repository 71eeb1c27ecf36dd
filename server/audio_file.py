"""Speech from any file that FFmpeg reads, block by block, as mono int16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

# Rates that sessions take and that AAC can carry, so that the video keeps the file's own.
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# FFmpeg guesses the format from the content: a playlist (HLS, DASH, concat) would make it open
# other files and addresses. These formats name no other file, and only files are opened at all.
_FORMATS = (
    "aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "gsm",
    "matroska", "webm", "mov", "mp4", "m4a", "mp3", "mpeg", "mpegts", "ogg", "tta", "voc", "w64",
    "wav", "wv",
)  # fmt: skip
_CONTAINER_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(_FORMATS),
}


class AudioFileError(ValueError):
    """A file whose sound cannot be used; the message says why and what would help."""


class AudioFile:
    """The first audio track of a file, mixed down to mono int16 at `rate` Hz.

    `rate` is the file's own where AAC knows it, else the nearest of its family (44 100 or 48 000).
    `duration_s` is what the file claims, None if it claims nothing. Raises AudioFileError when the
    file is missing, unreadable, has no audio track or no sound in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise AudioFileError(f"{self.path}: no such file; give a recording of speech")
        try:
            self._container = av.open(str(self.path), container_options=_CONTAINER_OPTIONS)
        except av.FFmpegError as error:
            raise AudioFileError(
                f"{self.path}: FFmpeg cannot read it ({error.strerror}); "
                "give a WAV, MP3, FLAC, Opus or M4A file"
            ) from error
        try:
            self._prepare()
        except BaseException:
            self._container.close()
            raise

    def _prepare(self) -> None:
        tracks = self._container.streams.audio
        if not tracks:
            raise AudioFileError(
                f"{self.path} has no audio track; give a file with sound, such as a WAV or MP3"
            )
        self._track = tracks[0]
        own = int(self._track.rate or 0)
        self.rate = own if own in _RATES else 44_100 if own and own % 11_025 == 0 else 48_000
        self.duration_s = self._claimed_duration()
        self._blocks = self._decode()
        # Taken now, so that an empty or damaged file is refused before any work is done.
        self._first = next(self._blocks, None)
        if self._first is None:
            raise AudioFileError(f"{self.path} holds no sound (0 samples); record it again")

    def _claimed_duration(self) -> float | None:
        if self._track.duration is not None and self._track.time_base is not None:
            return float(self._track.duration * self._track.time_base)
        if self._container.duration is not None:
            return self._container.duration / av.time_base
        return None

    def blocks(self) -> Iterator[NDArray[np.int16]]:
        """The samples in order, once. Raises AudioFileError where the file is damaged."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._blocks

    def _decode(self) -> Iterator[NDArray[np.int16]]:
        resampler = AudioResampler(format="s16", layout="mono", rate=self.rate)
        seconds = 0.0
        try:
            for frame in self._container.decode(self._track):
                seconds = frame.time if frame.time is not None else seconds
                frame.pts = None  # gaps and jumps of broken timestamps are not filled
                for block in resampler.resample(frame):
                    if block.samples:
                        yield _samples(block)
            for block in resampler.resample(None):
                if block.samples:
                    yield _samples(block)
        except (av.FFmpegError, ValueError) as error:  # ValueError: the format changes midway
            raise AudioFileError(
                f"{self.path} is damaged after {seconds:.1f} s ({error}); "
                "cut it there or convert it to WAV"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _samples(block: av.AudioFrame) -> NDArray[np.int16]:
    return np.asarray(block.to_ndarray(), dtype=np.int16).reshape(-1)
