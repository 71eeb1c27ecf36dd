"""PCM from WAV files and arrays, with the standard library only."""

from __future__ import annotations

import sys
import wave
from array import array
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeGuard

from visavis_client.errors import AudioFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pcm = bytes | bytearray | memoryview | NDArray[Any]
else:
    Pcm = Any

SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Wav:
    """Mono 16-bit little-endian PCM at `rate` Hz."""

    pcm: bytes
    rate: int

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_BYTES / self.rate


def read_wav(path: str | PathLike[str]) -> Wav:
    """Read a WAV file of 16-bit PCM; several channels are mixed to one.

    Raises AudioFormatError for any other kind of file, with the command that would convert it.
    """
    remedy = f"convert it: ffmpeg -i {path} -ac 1 -c:a pcm_s16le speech.wav"
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise AudioFormatError(f"{path} is no PCM WAV file: {error}", remedy=remedy) from error
    if width != SAMPLE_BYTES:
        raise AudioFormatError(f"{path} has {8 * width}-bit samples, 16 are needed", remedy=remedy)
    if channels == 1:
        return Wav(data, rate)
    samples = array("h", data)
    if sys.byteorder == "big":
        samples.byteswap()
    tracks = [samples[channel::channels] for channel in range(channels)]
    mixed = array("h", (sum(part) // channels for part in zip(*tracks, strict=True)))
    if sys.byteorder == "big":
        mixed.byteswap()
    return Wav(mixed.tobytes(), rate)


def is_pcm(audio: Any) -> TypeGuard[Pcm]:
    """Whether this is one piece of audio, not an iterable of pieces."""
    return isinstance(audio, (bytes, bytearray, memoryview)) or hasattr(audio, "dtype")


def as_pcm16(audio: Pcm) -> bytes:
    """Bytes of pcm16 from bytes, or from a one-dimensional numpy array.

    Arrays are int16, or floats from -1 to 1, which are scaled and clipped. Raises AudioFormatError
    for half a sample, other types and more dimensions.
    """
    if isinstance(audio, (bytes, bytearray, memoryview)):
        data = bytes(audio)
        if len(data) % SAMPLE_BYTES:
            raise AudioFormatError(
                f"{len(data)} bytes are not a whole number of 16-bit samples",
                remedy="keep the odd byte back and send it with the next piece",
            )
        return data
    kind = getattr(getattr(audio, "dtype", None), "kind", "")
    if getattr(audio, "ndim", None) != 1 or kind not in "if" or not kind:
        raise AudioFormatError(
            f"audio is {type(audio).__name__}, not bytes or a one-dimensional array",
            remedy="pass pcm16 bytes, int16 samples, or floats from -1 to 1",
        )
    if kind == "f":
        audio = (audio * 32767.0).clip(-32768, 32767)
    elif audio.dtype.itemsize != SAMPLE_BYTES:
        raise AudioFormatError(
            f"audio has samples of {audio.dtype}, 16 bits are needed", remedy="scale it to int16"
        )
    return bytes(audio.astype("<i2").tobytes())
