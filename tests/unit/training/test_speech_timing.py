"""Phoneme times: they tile the audio, survive every operation and sit on the closures."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.training.speech.espeak import EspeakError, EspeakSettings, load_espeak
from visavis.training.speech.phonemes import (
    PAUSE,
    SAMPLE_RATE,
    Phoneme,
    Utterance,
    advanced,
    from_durations,
    join,
    shifted,
    silence,
)
from visavis.training.speech.refine import refined


def assert_tiles(utterance: Utterance) -> None:
    assert utterance.phonemes[0].start == 0.0
    assert utterance.phonemes[-1].end == pytest.approx(utterance.seconds, abs=1e-6)
    for left, right in zip(utterance.phonemes, utterance.phonemes[1:], strict=False):
        assert left.end == pytest.approx(right.start, abs=1e-9)
        assert left.end > left.start


durations = st.lists(st.floats(0.02, 0.3), min_size=1, max_size=8)


@settings(deadline=None, max_examples=30)
@given(durations, st.sampled_from([8000, 16000, 22050, 24000]))
def test_durations_tile_the_audio_at_any_rate(seconds: list[float], rate: int) -> None:
    pcm = np.zeros(int((sum(seconds) + 0.05) * rate), np.float32)
    utterance = from_durations(pcm, rate, ["a"] * len(seconds), seconds)
    assert_tiles(utterance)


def test_another_number_of_symbols_is_refused() -> None:
    with pytest.raises(ValueError, match="durations_s has 1 entries for 2 symbols"):
        from_durations(np.zeros(100, np.float32), 16000, ["a", "b"], [0.1])


@settings(deadline=None, max_examples=30)
@given(st.floats(0.8, 1.25))
def test_a_shifted_voice_keeps_its_timing_in_proportion(factor: float) -> None:
    pcm = np.zeros(SAMPLE_RATE, np.float32)
    utterance = from_durations(pcm, SAMPLE_RATE, ["a", "m"], [0.4, 0.6])
    other = shifted(utterance, factor)
    assert_tiles(other)
    assert other.seconds == pytest.approx(1.0 / factor, rel=1e-3)
    assert other.phonemes[1].start == pytest.approx(0.4 / factor, rel=1e-3)


def test_advancing_moves_boundaries_and_not_the_sound() -> None:
    pcm = np.arange(SAMPLE_RATE, dtype=np.float32)
    utterance = from_durations(pcm, SAMPLE_RATE, [PAUSE, "a", PAUSE], [0.3, 0.4, 0.3])
    earlier = advanced(utterance, 0.06)
    assert_tiles(earlier)
    assert earlier.phonemes[1].start == pytest.approx(0.24)
    np.testing.assert_array_equal(earlier.pcm, utterance.pcm)


def test_joining_melts_neighbouring_pauses() -> None:
    whole = join([silence(0.5), silence(0.25), silence(0.25)])
    assert whole.phonemes == (Phoneme(PAUSE, 0.0, 1.0),)


def test_a_stop_moves_onto_the_silence_that_it_makes() -> None:
    rng = np.random.default_rng(0)
    pcm = (0.1 * rng.normal(size=SAMPLE_RATE)).astype(np.float32)
    pcm[int(0.42 * SAMPLE_RATE) : int(0.50 * SAMPLE_RATE)] *= 1e-3
    late = from_durations(pcm, SAMPLE_RATE, ["a", "p", "a"], [0.48, 0.09, 0.43])
    moved = refined(late)
    assert_tiles(moved)
    stop = next(p for p in moved.phonemes if p.ipa == "p")
    assert stop.start == pytest.approx(0.42, abs=0.012)
    assert stop.end == pytest.approx(0.50, abs=0.012)


def test_the_silent_end_of_a_last_sound_becomes_pause() -> None:
    pcm = np.zeros(SAMPLE_RATE, np.float32)
    pcm[: SAMPLE_RATE // 2] = 0.1 * np.random.default_rng(0).normal(size=SAMPLE_RATE // 2)
    utterance = from_durations(pcm, SAMPLE_RATE, ["a", "s", PAUSE], [0.3, 0.5, 0.2])
    cut = refined(utterance)
    assert_tiles(cut)
    assert cut.phonemes[1].end == pytest.approx(0.5, abs=0.02)


def has_espeak() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_espeak(), reason="libespeak-ng1 is not installed")
class TestEspeak:
    def test_phonemes_tile_the_speech_and_name_its_sounds(self) -> None:
        settings = EspeakSettings(voice="en-us+f3", rate=160)
        spoken = load_espeak().say("Bob may pay.", settings)
        assert_tiles(spoken)
        assert 0.5 < spoken.seconds < 3.0
        sounds = [p.ipa for p in spoken.phonemes if p.ipa]
        assert sounds[:3] == ["b", "ɑː", "b"]
        assert sounds[-2:] == ["p", "eɪ"]

    def test_refining_keeps_audio_and_tiling(self) -> None:
        spoken = load_espeak().say("Peter bought a paper map.", EspeakSettings(voice="en-us"))
        fine = refined(spoken)
        assert_tiles(fine)
        np.testing.assert_array_equal(fine.pcm, spoken.pcm)
        bilabials = [p for p in fine.phonemes if p.ipa and p.ipa in "pbm"]
        assert len(bilabials) == 6

    def test_faster_is_shorter(self) -> None:
        slow = load_espeak().say("One two three four.", EspeakSettings(voice="de", rate=120))
        fast = load_espeak().say("One two three four.", EspeakSettings(voice="de", rate=220))
        assert fast.seconds < 0.8 * slow.seconds

    def test_an_unknown_voice_is_refused(self) -> None:
        with pytest.raises(EspeakError, match="xx-nowhere"):
            load_espeak().say("a", EspeakSettings(voice="xx-nowhere"))
