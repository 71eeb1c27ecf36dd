"""Move phoneme boundaries to where the audio says they are.

Synthesisers place a stop at its burst and leave the closure before it to the vowel, and draw the
last sound of a phrase into the silence behind it. Lips must close with the closure, so stops are
put on the dip of the energy between 0.7 and 4 kHz that they make.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.training.speech.phonemes import PAUSE, SAMPLE_RATE, Phoneme, Utterance

HOP: Final = 80  # 5 ms
HOP_S: Final = HOP / SAMPLE_RATE
BREATH: Final = "ʰ"  # the puff after a stop: no shape of its own
_STOPS: Final = frozenset("pbmtdkɡgʈɖcɟq")
_SEARCH_BEFORE_S = 0.070
_SEARCH_AFTER_S = 0.060
_LONGEST_CLOSURE_S = 0.110
_SHORTEST_CLOSURE_S = 0.040
_SHORTEST_VOWEL_S = 0.025
_SHORTEST_PAUSE_S = 0.060
_QUIET_BELOW_ACTIVE_DB = 36.0
_FLOOR = 1e-7


def middle_band_db(pcm: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy between 0.7 and 4 kHz every 5 ms, `[samples // 80]`, in dB, Hann windows of 16 ms."""
    frames = len(pcm) // HOP
    padded = np.pad(pcm, (128 - HOP // 2, 256))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 256)[::HOP][:frames]
    power = np.abs(np.fft.rfft(windows * np.hanning(256), axis=1)) ** 2
    hz = np.fft.rfftfreq(256, 1.0 / SAMPLE_RATE)
    band = (hz >= 700.0) & (hz <= 4000.0)
    energy: NDArray[np.float64] = 10.0 * np.log10(power[:, band].mean(axis=1) + _FLOOR)
    return energy


def refined(utterance: Utterance) -> Utterance:
    """The same audio with tiny pauses dissolved, silent ends cut off and stops on their dips."""
    if len(utterance.pcm) < 2 * HOP:
        return utterance
    energy = middle_band_db(utterance.pcm)
    phonemes = _without_tiny_pauses(list(utterance.phonemes))
    phonemes = _with_silent_ends_cut(phonemes, energy)
    phonemes = _with_stops_on_dips(phonemes, energy)
    return Utterance(utterance.pcm, tuple(p for p in phonemes if p.end - p.start > 1e-6))


def _without_tiny_pauses(phonemes: list[Phoneme]) -> list[Phoneme]:
    out: list[Phoneme] = []
    for index, phoneme in enumerate(phonemes):
        tiny = phoneme.end - phoneme.start < _SHORTEST_PAUSE_S
        inside = 0 < index < len(phonemes) - 1
        if out and phoneme.ipa == PAUSE and (out[-1].ipa == PAUSE or (tiny and inside)):
            out[-1] = Phoneme(out[-1].ipa, out[-1].start, phoneme.end)
        elif out and phoneme.ipa == out[-1].ipa:
            out[-1] = Phoneme(phoneme.ipa, out[-1].start, phoneme.end)
        else:
            out.append(phoneme)
    return out


def _with_silent_ends_cut(phonemes: list[Phoneme], energy: NDArray[np.float64]) -> list[Phoneme]:
    """A pause takes the silent end of the sound before it, and the silent start of the next."""
    quiet = energy < np.percentile(energy, 90) - _QUIET_BELOW_ACTIVE_DB
    out = list(phonemes)
    for index, phoneme in enumerate(out):
        if phoneme.ipa == PAUSE:
            continue
        first, last = _columns(phoneme, len(quiet))
        before, after = out[index - 1 : index], out[index + 1 : index + 2]
        if after and after[0].ipa == PAUSE:
            while last > first + 6 and quiet[last - 1]:
                last -= 1
            cut = min(phoneme.end, last * HOP_S)
            out[index] = phoneme = Phoneme(phoneme.ipa, phoneme.start, max(phoneme.start, cut))
            out[index + 1] = Phoneme(PAUSE, phoneme.end, after[0].end)
        if before and before[0].ipa == PAUSE:
            while first < last - 6 and quiet[first]:
                first += 1
            cut = min(max(phoneme.start, first * HOP_S), phoneme.end)
            out[index] = Phoneme(phoneme.ipa, cut, phoneme.end)
            out[index - 1] = Phoneme(PAUSE, before[0].start, cut)
    return out


def _with_stops_on_dips(phonemes: list[Phoneme], energy: NDArray[np.float64]) -> list[Phoneme]:
    out: list[Phoneme] = []
    for index, phoneme in enumerate(phonemes):
        if (
            not phoneme.ipa
            or phoneme.ipa[0] not in _STOPS
            or len(phoneme.ipa) > 1 + (phoneme.ipa[-1] in "ʰʲːʷ")
        ):
            out.append(phoneme)
            continue
        previous = out[-1] if out else Phoneme(PAUSE, 0.0, 0.0)
        room = 0.0 if previous.ipa == PAUSE else _SHORTEST_VOWEL_S
        earliest = min(phoneme.start, max(previous.start + room, phoneme.start - _SEARCH_BEFORE_S))
        follows_pause = index + 1 < len(phonemes) and phonemes[index + 1].ipa == PAUSE
        latest = min(phoneme.end, phoneme.start + _SEARCH_AFTER_S)
        start, end = _dip(energy, earliest, latest, keep_start=follows_pause)
        start, end = max(start, earliest), min(end, phoneme.end)
        if end - start < _SHORTEST_CLOSURE_S:
            end = min(phoneme.end, start + _SHORTEST_CLOSURE_S)
        if out:
            out[-1] = Phoneme(previous.ipa, previous.start, start)
        elif start > 0.0:
            out.append(Phoneme(PAUSE, 0.0, start))
        if phoneme.ipa[0] == "m":  # a hum goes on as long as the lips are shut
            end = max(end, phoneme.end)
        out.append(Phoneme(phoneme.ipa, start, end))
        if phoneme.end > end:
            out.append(Phoneme(BREATH, end, phoneme.end))
    return out


def _columns(phoneme: Phoneme, count: int) -> tuple[int, int]:
    return (min(round(phoneme.start / HOP_S), count), min(round(phoneme.end / HOP_S), count))


def _dip(
    energy: NDArray[np.float64], earliest: float, latest: float, *, keep_start: bool
) -> tuple[float, float]:
    """The stretch of low energy around the lowest place between two times, in seconds.

    A stretch longer than a closure loses its start, so that the release stays, or its end
    (`keep_start`) where silence follows.
    """
    first = max(0, int(earliest / HOP_S))
    last = min(len(energy), max(int(np.ceil(latest / HOP_S)), first + 2))
    window = energy[first:last]
    if not len(window):
        return earliest, latest
    middle = int(window.argmin())
    threshold = (float(window.min()) + float(window.max())) / 2
    low = high = middle
    while low > 0 and window[low - 1] <= threshold:
        low -= 1
    while high < len(window) - 1 and window[high + 1] <= threshold:
        high += 1
    start, end = (first + low) * HOP_S, (first + high + 1) * HOP_S
    if end - start > _LONGEST_CLOSURE_S:
        if keep_start:
            end = start + _LONGEST_CLOSURE_S
        else:
            start = end - _LONGEST_CLOSURE_S
    return start, end
