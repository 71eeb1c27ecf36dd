"""What every synthesis back end returns: speech at 16 kHz and when each phoneme sounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
PAUSE = ""


class Phoneme(NamedTuple):
    """One sound: its IPA symbols (`PAUSE` = silence) from `start` to `end`, in seconds."""

    ipa: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """`pcm` float32 `[samples]` at 16 kHz; `phonemes` tile it without gaps, in order."""

    pcm: NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


def from_durations(
    pcm: NDArray[np.float32], rate: float, symbols: Sequence[str], durations_s: Sequence[float]
) -> Utterance:
    """Make an utterance of audio at `rate` Hz whose symbols follow each other.

    Durations are in seconds of the given audio; a rest of the audio becomes a pause. A `rate`
    other than the true one shifts pitch and formants and scales the timings with them.

    Raises:
        ValueError: the numbers of symbols and durations differ.
    """
    if len(symbols) != len(durations_s):
        raise ValueError(
            f"durations_s has {len(durations_s)} entries for {len(symbols)} symbols; give one each"
        )
    resampled = soxr.resample(np.asarray(pcm, np.float32), rate, SAMPLE_RATE).astype(np.float32)
    total = len(resampled) / SAMPLE_RATE
    ends = np.minimum(np.cumsum(durations_s), total) if len(symbols) else np.zeros(0)
    starts = np.concatenate([[0.0], ends[:-1]]) if len(symbols) else np.zeros(0)
    phonemes = [
        Phoneme(symbol, float(start), float(end))
        for symbol, start, end in zip(symbols, starts, ends, strict=True)
        if end > start
    ]
    covered = phonemes[-1].end if phonemes else 0.0
    if total > covered:
        phonemes.append(Phoneme(PAUSE, covered, total))
    return Utterance(resampled, tuple(phonemes))


def shifted(utterance: Utterance, factor: float) -> Utterance:
    """Another speaker by resampling: `factor` 1.1 is 10 % higher, smaller and faster."""
    durations = [(p.end - p.start) for p in utterance.phonemes]
    symbols = [p.ipa for p in utterance.phonemes]
    return from_durations(
        utterance.pcm, SAMPLE_RATE * factor, symbols, [d / factor for d in durations]
    )


def advanced(utterance: Utterance, seconds: float) -> Utterance:
    """Move every boundary inside the utterance `seconds` earlier; the audio stays as it is."""
    moved = [
        Phoneme(p.ipa, max(0.0, p.start - seconds), max(0.0, p.end - seconds))
        for p in utterance.phonemes
    ]
    kept = [p for p in moved if p.end > p.start]
    if kept and kept[-1].end < utterance.seconds:
        kept.append(Phoneme(PAUSE, kept[-1].end, utterance.seconds))
    return Utterance(utterance.pcm, tuple(kept))


def join(parts: Sequence[Utterance]) -> Utterance:
    """One utterance after the other; neighbouring pauses melt into one."""
    phonemes: list[Phoneme] = []
    offset = 0.0
    for part in parts:
        for ipa, start, end in part.phonemes:
            if phonemes and ipa == PAUSE and phonemes[-1].ipa == PAUSE:
                phonemes[-1] = Phoneme(PAUSE, phonemes[-1].start, offset + end)
            else:
                phonemes.append(Phoneme(ipa, offset + start, offset + end))
        offset += part.seconds
    pcm = np.concatenate([p.pcm for p in parts]) if parts else np.zeros(0, np.float32)
    return Utterance(pcm, tuple(phonemes))


def silence(seconds: float) -> Utterance:
    """Digital silence of `seconds`, rounded to whole samples."""
    samples = round(seconds * SAMPLE_RATE)
    phonemes = (Phoneme(PAUSE, 0.0, samples / SAMPLE_RATE),) if samples else ()
    return Utterance(np.zeros(samples, np.float32), phonemes)
