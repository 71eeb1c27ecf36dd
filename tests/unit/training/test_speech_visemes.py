"""Mouth curves: closures close, vowels open, silence rests, and nothing leaves its range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from visavis.training.puppets.controls import CONTROLS, INDEX, lip_gap
from visavis.training.speech.phonemes import PAUSE, SAMPLE_RATE, Phoneme, Utterance
from visavis.training.speech.visemes import (
    BILABIALS,
    FPS,
    MOUTH_CONTROLS,
    SHAPES,
    atoms,
    mouth_curves,
)

JAW, UPPER, LOWER, WIDE, PRESS = range(5)


def spoken(*sounds: tuple[str, float]) -> Utterance:
    """An utterance of steady loudness in which each sound lasts as long as given."""
    phonemes, time = [], 0.0
    for ipa, seconds in sounds:
        phonemes.append(Phoneme(ipa, time, time + seconds))
        time += seconds
    samples = round(time * SAMPLE_RATE)
    pcm = 0.1 * np.sin(np.arange(samples) * 0.3)
    return Utterance(pcm.astype(np.float32), tuple(phonemes))


def curves(utterance: Utterance) -> NDArray[np.float32]:
    return mouth_curves(utterance, int(np.ceil(utterance.seconds * FPS)))


def gap(mouth: NDArray[np.float32]) -> NDArray[np.float32]:
    controls = np.zeros((len(mouth), len(CONTROLS)), np.float32)
    for column, name in enumerate(MOUTH_CONTROLS):
        controls[:, INDEX[name]] = mouth[:, column]
    return lip_gap(controls)


def at(mouth: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    return mouth[int(seconds * FPS)]


@given(
    sound=st.sampled_from(sorted(BILABIALS)),
    before=st.sampled_from(["a", "i", "u", "s", "ɛ"]),
    after=st.sampled_from(["a", "o", "ɹ", "æ"]),
    lead=st.floats(0.05, 0.4),
    length=st.floats(0.015, 0.15),
)
@settings(max_examples=25, deadline=None)
def test_every_bilabial_shuts_the_lips_in_at_least_one_frame(
    sound: str, before: str, after: str, lead: float, length: float
) -> None:
    mouth = curves(spoken((before, lead), (sound, length), (after, 0.3)))
    centres = (np.arange(len(mouth)) + 0.5) / FPS
    near = np.abs(centres - (lead + length / 2)) <= 0.024
    closed = near & (gap(mouth) == 0.0)
    assert closed.any()
    assert mouth[closed, PRESS].max() > 0.5


def test_open_vowels_open_the_jaw_more_than_close_ones() -> None:
    opening = {v: at(curves(spoken((v, 0.4))), 0.2)[JAW] for v in "aeiu"}
    assert opening["a"] > opening["e"] > opening["i"] > opening["u"]
    assert opening["a"] > 0.6


def test_rounding_and_spreading_have_opposite_signs() -> None:
    assert at(curves(spoken(("u", 0.3))), 0.15)[WIDE] < -0.7
    assert at(curves(spoken(("i", 0.3))), 0.15)[WIDE] > 0.5
    assert at(curves(spoken(("ʃ", 0.2))), 0.1)[WIDE] < -0.3


def test_labiodentals_raise_the_lower_lip() -> None:
    mouth = curves(spoken(("a", 0.2), ("v", 0.1), ("a", 0.2)))
    assert at(mouth, 0.26)[LOWER] < -0.6
    assert gap(mouth)[6] < 0.1


def test_silence_shuts_the_mouth_and_relaxes_it() -> None:
    mouth = curves(spoken((PAUSE, 0.6), ("a", 0.3), (PAUSE, 1.0)))
    centres = (np.arange(len(mouth)) + 0.5) / FPS
    silent = (centres < 0.6 - 0.06) | (centres > 0.9 + 0.26)
    assert gap(mouth)[silent].max() == 0.0
    assert mouth[silent, PRESS].max() < 0.1
    assert np.abs(mouth[silent, WIDE]).max() == 0.0


def test_a_mouth_does_not_move_more_than_60_ms_before_it_speaks() -> None:
    onset = 0.5
    for sound in ("a", "u", "v", "b"):
        mouth = curves(spoken((PAUSE, onset), (sound, 0.2), (PAUSE, 0.5)))
        early = (np.arange(len(mouth)) + 0.5) / FPS < onset - 0.06
        np.testing.assert_allclose(mouth[early], mouth[:1].repeat(early.sum(), 0), atol=0.08)


def test_rounding_is_anticipated_by_less_than_60_ms_inside_speech() -> None:
    plain = curves(spoken(("a", 0.4), ("t", 0.1), ("a", 0.3)))
    rounded = curves(spoken(("a", 0.4), ("w", 0.1), ("a", 0.3)))
    centres = (np.arange(len(plain)) + 0.5) / FPS
    early = centres < 0.4 - 0.1
    np.testing.assert_allclose(plain[early, WIDE], rounded[early, WIDE], atol=0.02)
    assert at(rounded, 0.45)[WIDE] < at(plain, 0.45)[WIDE] - 0.5


@given(
    st.lists(st.tuples(st.sampled_from([*sorted(SHAPES), "ʘ"]), st.floats(0.01, 0.5)), min_size=1)
)
@settings(max_examples=25, deadline=None)
def test_any_sequence_of_sounds_stays_in_range(sounds: list[tuple[str, float]]) -> None:
    mouth = curves(spoken(*sounds))
    assert np.isfinite(mouth).all()
    assert mouth[:, [JAW, UPPER, PRESS]].min() >= 0.0
    assert mouth[:, [LOWER, WIDE]].min() >= -1.0
    assert mouth.max() <= 1.0


def test_quiet_speech_opens_less_than_loud_speech() -> None:
    utterance = spoken(("a", 0.6), ("t", 0.1), ("a", 0.6), ("t", 0.1), ("a", 0.6))
    pcm = utterance.pcm.copy()
    pcm[: int(0.6 * SAMPLE_RATE)] *= 0.25
    mouth = curves(Utterance(pcm, utterance.phonemes))
    assert at(mouth, 0.3)[JAW] < 0.85 * at(mouth, 1.7)[JAW]


def test_fast_vowels_reach_less_far_than_slow_ones() -> None:
    fast = curves(spoken(*[("t", 0.05), ("a", 0.06)] * 8))
    slow = curves(spoken(*[("t", 0.1), ("a", 0.25)] * 4))
    assert fast[4:-4, JAW].max() < slow[4:-4, JAW].max()


@pytest.mark.parametrize(
    ("ipa", "parts"),
    [("aɪ", ["a", "ɪ"]), ("tʃ", ["t", "ʃ"]), ("ɑːɹ", ["ɑ", "ɹ"]), ("sʲ", ["s"]), ("ɔ̃", ["ɔ"])],
)
def test_compound_phonemes_are_split_and_keep_their_time(ipa: str, parts: list[str]) -> None:
    pieces = atoms([Phoneme(ipa, 1.0, 1.2)])
    assert [p.ipa for p in pieces] == parts
    assert pieces[0].start == 1.0
    assert pieces[-1].end == pytest.approx(1.2)


def test_a_switch_of_language_is_no_sound_of_its_own() -> None:
    assert [p.ipa for p in atoms([Phoneme("(en)", 0.0, 0.1)])] == ["ʰ"]


def test_an_unknown_letter_gets_a_slightly_open_mouth() -> None:
    assert 0.0 < gap(curves(spoken(("ʘ", 0.3))))[4] < 0.5
