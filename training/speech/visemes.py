"""Phonemes -> mouth curves: jaw, upper_lip, lower_lip, wide and press at 25 fps.

Each sound pulls each control towards its target with a strength of its own (dominance, after
Cohen & Massaro 1993): rounding and closures are strong, the tongue's consonants weak, so that they
take the shape of their neighbours. The pull starts at most 60 ms before the sound, because the
model hears no further ahead. Lip closures are then enforced, so that smoothing cannot open them.
"""

import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visavis.training.speech.phonemes import PAUSE, SAMPLE_RATE, Phoneme, Utterance
from visavis.training.speech.refine import BREATH

FPS: Final = 25
MOUTH_CONTROLS: Final = ("jaw", "upper_lip", "lower_lip", "wide", "press")
_GRID_HZ = 200
_ANTICIPATION_S = 0.045
_CARRY_OVER_S = 0.095
_SMOOTHING_S = 0.016
# A frame lasts 40 ms: a closure this long has the centre of one inside.
_CLOSURE_CORE_S = 0.046
_CLOSURE_IN_S = 0.045
_CLOSURE_OUT_S = 0.075
_REST_PRESS = 0.05
_REST_AFTER_S = 0.09
_REST_FALL_S = 0.16
_REST_RISE_S = 0.060


class Shape(NamedTuple):
    """Targets of the five controls, and how strongly jaw and lips are pulled to them."""

    jaw: float
    upper_lip: float
    lower_lip: float
    wide: float
    press: float = 0.0
    jaw_pull: float = 1.0
    lip_pull: float = 1.0


def _vowel(jaw: float, wide: float, upper: float, lower: float = 0.2) -> Shape:
    return Shape(jaw, upper, lower, wide, 0.0, 1.0, 0.8 + 0.7 * max(0.0, -wide))


_REST: Final = Shape(0.0, 0.0, 0.0, 0.0, _REST_PRESS, 0.9, 0.7)
_BILABIAL: Final = Shape(0.05, 0.0, 0.0, 0.0, 1.0, 4.0, 2.0)
_LABIODENTAL: Final = Shape(0.13, 0.35, -1.0, 0.05, 0.0, 2.5, 2.2)
_SIBILANT: Final = Shape(0.10, 0.28, 0.32, 0.35, 0.0, 2.2, 0.6)
_HUSHING: Final = Shape(0.13, 0.45, 0.50, -0.55, 0.0, 2.0, 1.6)
_ALVEOLAR: Final = Shape(0.18, 0.20, 0.18, 0.15, 0.0, 0.9, 0.25)
_DENTAL: Final = Shape(0.22, 0.18, 0.22, 0.15, 0.0, 1.1, 0.4)
_LATERAL: Final = Shape(0.28, 0.20, 0.20, 0.12, 0.0, 0.6, 0.25)
_VELAR: Final = Shape(0.24, 0.15, 0.12, 0.05, 0.0, 0.5, 0.15)
_PALATAL: Final = Shape(0.17, 0.22, 0.15, 0.45, 0.0, 0.8, 0.5)
_RHOTIC: Final = Shape(0.20, 0.22, 0.20, -0.40, 0.0, 0.9, 0.8)
_TRILL: Final = Shape(0.24, 0.18, 0.18, 0.05, 0.0, 0.8, 0.2)
_GLIDE_W: Final = Shape(0.12, 0.15, 0.12, -1.0, 0.0, 1.8, 2.2)
_NEUTRAL: Final = Shape(0.22, 0.12, 0.12, 0.0, 0.0, 0.12, 0.08)
_UNKNOWN: Final = Shape(0.22, 0.15, 0.15, 0.05, 0.0, 0.5, 0.3)

SHAPES: Final[dict[str, Shape]] = {
    PAUSE: _REST,
    # jaw, wide, upper lip, lower lip
    "i": _vowel(0.20, 0.80, 0.28, 0.20), "ɪ": _vowel(0.28, 0.50, 0.25),
    "ɨ": _vowel(0.24, 0.30, 0.22),
    "e": _vowel(0.38, 0.62, 0.32, 0.25), "ɛ": _vowel(0.54, 0.45, 0.34, 0.28),
    "æ": _vowel(0.72, 0.45, 0.38, 0.35), "a": _vowel(0.84, 0.15, 0.34, 0.35),
    "ɑ": _vowel(0.88, 0.02, 0.30, 0.35), "ɐ": _vowel(0.62, 0.08, 0.28, 0.25),
    "ʌ": _vowel(0.60, 0.06, 0.26, 0.25), "ə": _vowel(0.34, 0.05, 0.18, 0.15),
    "ɜ": _vowel(0.42, -0.12, 0.24, 0.2), "ɚ": _vowel(0.36, -0.30, 0.24, 0.2),
    "ɘ": _vowel(0.34, 0.10, 0.2), "ɯ": _vowel(0.24, 0.20, 0.2), "ɤ": _vowel(0.42, 0.05, 0.22),
    "ɒ": _vowel(0.72, -0.40, 0.26, 0.3), "ɔ": _vowel(0.60, -0.60, 0.24, 0.28),
    "o": _vowel(0.42, -0.80, 0.20, 0.22), "ʊ": _vowel(0.28, -0.65, 0.18),
    "ɵ": _vowel(0.34, -0.6, 0.2),
    "u": _vowel(0.17, -1.0, 0.14, 0.14), "ʉ": _vowel(0.18, -0.90, 0.16),
    "y": _vowel(0.17, -0.92, 0.18),
    "ʏ": _vowel(0.24, -0.75, 0.18), "ø": _vowel(0.34, -0.80, 0.22), "œ": _vowel(0.50, -0.62, 0.26),
    "p": _BILABIAL, "b": _BILABIAL, "m": _BILABIAL,
    "f": _LABIODENTAL, "v": _LABIODENTAL, "ɱ": _LABIODENTAL,
    "ʋ": _LABIODENTAL._replace(lower_lip=-0.55, jaw=0.16, lip_pull=1.2),
    "β": Shape(0.10, 0.05, 0.02, -0.05, 0.25, 1.6, 1.2),
    "ɸ": Shape(0.10, 0.05, 0.02, -0.1, 0.2, 1.6, 1.2),
    "w": _GLIDE_W, "ʍ": _GLIDE_W, "ɥ": _GLIDE_W._replace(wide=-0.85),
    "s": _SIBILANT, "z": _SIBILANT, "ɕ": _HUSHING._replace(wide=-0.2),
    "ʑ": _HUSHING._replace(wide=-0.2),
    "ʃ": _HUSHING, "ʒ": _HUSHING, "ʂ": _HUSHING, "ʐ": _HUSHING,
    "t": _ALVEOLAR, "d": _ALVEOLAR, "n": _ALVEOLAR, "ɾ": _ALVEOLAR, "ʈ": _ALVEOLAR,
    "ɖ": _ALVEOLAR,
    "ɳ": _ALVEOLAR, "θ": _DENTAL, "ð": _DENTAL, "l": _LATERAL, "ɫ": _LATERAL, "ɭ": _LATERAL,
    "ɬ": _LATERAL,
    "k": _VELAR, "g": _VELAR, "ɡ": _VELAR, "ŋ": _VELAR, "x": _VELAR, "ɣ": _VELAR, "q": _VELAR,
    "χ": _VELAR, "ʁ": _VELAR, "ɴ": _VELAR, "ɰ": _VELAR,
    "j": _PALATAL, "ʝ": _PALATAL, "ç": _PALATAL, "ɲ": _PALATAL, "ʎ": _PALATAL, "c": _PALATAL,
    "ɟ": _PALATAL,
    "ɹ": _RHOTIC, "ɻ": _RHOTIC, "r": _TRILL, "ɽ": _TRILL, "ʀ": _TRILL,
    "h": _NEUTRAL, "ɦ": _NEUTRAL, "ħ": _NEUTRAL, "ʔ": _NEUTRAL, "ʕ": _NEUTRAL, BREATH: _NEUTRAL,
}  # fmt: skip
VOWELS: Final = frozenset("iɪɨeɛæaɑɐʌəɜɚɘɯɤɒɔoʊɵuʉyʏøœ")
BILABIALS: Final = frozenset("pbm")
_SAME_AS: Final = {"ᵻ": "ɪ", "ɝ": "ɚ", "ʤ": "dʒ", "ʧ": "tʃ", "ʦ": "ts", "ʣ": "dz"}


def atoms(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    """Split diphthongs, affricates and clusters into single sounds, dropping marks.

    The first part of a diphthong gets 60 % of its time; an affricate's stop a third.
    """
    out: list[Phoneme] = []
    for phoneme in phonemes:
        text = "".join(_SAME_AS.get(c, c) for c in phoneme.ipa)
        if "(" in text:  # a switch of language, no sound
            text = BREATH
        letters = [c for c in text if c != BREATH and (c in SHAPES or _is_letter(c))]
        if phoneme.ipa == PAUSE or not letters:
            letters = [PAUSE if phoneme.ipa == PAUSE else BREATH]
        weights = [1.0] * len(letters)
        if len(letters) > 1:
            weights[0] = 0.5 if letters[0] not in VOWELS else 1.5
        total, start = sum(weights), phoneme.start
        for letter, weight in zip(letters, weights, strict=True):
            end = start + (phoneme.end - phoneme.start) * weight / total
            out.append(Phoneme(letter, start, end))
            start = end
    return out


def _is_letter(symbol: str) -> bool:
    """Whether it stands for a sound; modifiers, digits and combining marks do not."""
    return unicodedata.category(symbol) in ("Ll", "Lo", "Lu")


def shape_of(sound: str) -> Shape:
    """The targets of one sound; an unknown one is a weak, slightly open consonant."""
    return SHAPES.get(sound, _UNKNOWN)


def mouth_curves(
    utterance: Utterance, frames: int, *, openness: float = 1.0
) -> NDArray[np.float32]:
    """`[frames, 5]` in the order of `MOUTH_CONTROLS`, sampled at the frames' centres.

    `openness` scales the jaw (a speaker's style, 0.9..1.1). Quiet and fast speech opens less.
    """
    sounds = atoms(utterance.phonemes)
    grid = np.arange(int(np.ceil(frames / FPS * _GRID_HZ)) + 1) / _GRID_HZ
    curves = _blend(sounds, grid)
    curves[:, 0] *= openness * _loudness(utterance, grid)
    curves = _smooth(curves)
    curves = _enforce_closures(curves, sounds, grid)
    curves = _enforce_rest(curves, sounds, grid)
    centres = (np.arange(frames) + 0.5) / FPS
    sampled = np.stack([np.interp(centres, grid, curve) for curve in curves.T], axis=1)
    low = np.array([0.0, 0.0, -1.0, -1.0, 0.0])
    clipped: NDArray[np.float32] = np.clip(sampled, low, 1.0).astype(np.float32)
    return clipped


def _blend(sounds: Sequence[Phoneme], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    weighted = np.zeros((len(grid), 5))
    weights = np.full((len(grid), 5), 1e-6)
    weighted[:, 4] = 1e-6 * _REST_PRESS
    for sound in sounds:
        shape = shape_of(sound.ipa)
        duration = sound.end - sound.start
        target = np.array(shape[:5])
        if sound.ipa in VOWELS:  # a short vowel does not reach its opening
            target[:3] *= 0.72 + 0.33 * min(1.0, duration / 0.13)
        first = max(0, int((sound.start - _ANTICIPATION_S) * _GRID_HZ))
        last = min(len(grid), int((sound.end + _CARRY_OVER_S) * _GRID_HZ) + 2)
        time = grid[first:last]
        attack = (time - sound.start + _ANTICIPATION_S) / (_ANTICIPATION_S + 0.3 * duration)
        release = (sound.end + _CARRY_OVER_S - time) / (_CARRY_OVER_S + 0.3 * duration)
        presence = _ease(attack) * _ease(release)
        pulls = np.array([shape.jaw_pull, *(shape.lip_pull,) * 3, max(shape.lip_pull, 0.8)])
        strength = presence[:, None] ** 2 * pulls
        weighted[first:last] += strength * target
        weights[first:last] += strength
    blended: NDArray[np.float64] = weighted / weights
    return blended


def _loudness(utterance: Utterance, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """0.7 (quiet) .. 1.1 (loud) of the speech's own level, smoothed over 0.2 s."""
    block = SAMPLE_RATE // 50
    count = len(utterance.pcm) // block
    if count < 2:
        return np.ones(len(grid))
    power = np.mean(utterance.pcm[: count * block].reshape(count, block) ** 2, axis=1)
    kernel = np.hanning(13)[1:-1]
    smooth = np.convolve(np.pad(power, 5, mode="edge"), kernel / kernel.sum(), mode="valid")
    level = 10.0 * np.log10(smooth + 1e-9)
    active = level[level > level.max() - 25.0]
    scale = np.clip(0.95 + 0.02 * (level - np.median(active)), 0.7, 1.1)
    curve: NDArray[np.float64] = np.interp(grid, (np.arange(count) + 0.5) / 50, scale)
    return curve


def _smooth(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = round(3 * _SMOOTHING_S * _GRID_HZ)
    offsets = np.arange(-radius, radius + 1) / _GRID_HZ
    kernel = np.exp(-0.5 * (offsets / _SMOOTHING_S) ** 2)
    padded = np.pad(curves, ((radius, radius), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel / kernel.sum(), mode="valid") for c in padded.T], axis=1)


def _enforce_closures(
    curves: NDArray[np.float64], sounds: Sequence[Phoneme], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shut the lips in every p, b and m for at least one frame."""
    closure = np.zeros(len(grid))
    for sound in sounds:
        if sound.ipa not in BILABIALS:
            continue
        middle = (sound.start + sound.end) / 2
        half = max(_CLOSURE_CORE_S, sound.end - sound.start) / 2
        rising = _ease((grid - (middle - half - _CLOSURE_IN_S)) / _CLOSURE_IN_S)
        falling = _ease((middle + half + _CLOSURE_OUT_S - grid) / _CLOSURE_OUT_S)
        closure = np.maximum(closure, rising * falling)
    shut = np.array([0.04, 0.0, 0.0, 0.0, 1.0])
    mixed = curves * (1 - closure[:, None]) + shut * closure[:, None]
    mixed[:, 3] = curves[:, 3]  # rounding goes on behind closed lips
    return mixed


def _enforce_rest(
    curves: NDArray[np.float64], sounds: Sequence[Phoneme], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Let the mouth fall shut in pauses: begin 90 ms into one, open 60 ms before it ends."""
    rest = np.zeros(len(grid))
    for index, sound in enumerate(sounds):
        if sound.ipa != PAUSE:
            continue
        lead = -1.0 if index == 0 else sound.start + _REST_AFTER_S
        trail = grid[-1] + 1.0 if index == len(sounds) - 1 else sound.end
        rising = _ease((grid - lead) / _REST_FALL_S) if index else np.ones(len(grid))
        falling = _ease((trail - grid) / _REST_RISE_S)
        rest = np.maximum(rest, rising * falling)
    target = np.array([0.0, 0.0, 0.0, 0.0, _REST_PRESS])
    return curves * (1 - rest[:, None]) + target * rest[:, None]


def _ease(x: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(x, 0.0, 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)
