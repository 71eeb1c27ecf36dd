"""The speakers: who is trained on, and who is kept for evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from visavis.training.speech.espeak import EspeakSettings, load_espeak
from visavis.training.speech.neural import KokoroVoice, hibari_voice, piper_joe
from visavis.training.speech.phonemes import SAMPLE_RATE, Utterance, shifted
from visavis.training.speech.refine import refined

# Never trained on: a natural man, and a formant voice in a language and with a variant that
# no training voice has.
HELD_OUT_VOICES: Final = ("kokoro-kumo", "espeak-pt-br+f4")

_ESPEAK_LANGUAGES: Final = {
    "en-us": "en", "en": "en", "en-gb-scotland": "en", "en-gb-x-rp": "en", "de": "de",
    "fr": "fr", "es": "es", "es-419": "es", "it": "it", "nl": "nl", "pl": "pl", "sv": "sv",
    "tr": "tr", "fi": "fi", "cs": "cs", "ru": "ru", "el": "el", "hi": "hi",
}  # fmt: skip
_ESPEAK_VARIANTS: Final = (
    "", "f1", "f2", "f3", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8",
    "Annie", "Andy", "Denis", "Michael", "linda", "steph", "belinda", "quincy", "victor",
)  # fmt: skip
_KOKORO_TRAINING: Final = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro")
_ACTIVE_LEVEL_DB = -22.0


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker with a name, the language of his sentences and a way to say them."""

    name: str
    language: str
    say: Callable[[str, np.random.Generator], Utterance]


def _espeak(voice: str, language: str, rng: np.random.Generator) -> Voice:
    settings = EspeakSettings(
        voice=voice,
        rate=int(rng.integers(125, 215)),
        pitch=int(rng.integers(20, 80)),
        pitch_range=int(rng.integers(30, 75)),
    )
    factor = float(np.exp(rng.normal(0.0, 0.05)))

    def say(text: str, rng: np.random.Generator) -> Utterance:
        return _finished(shifted(load_espeak().say(text, settings), factor))

    return Voice(f"espeak-{voice}", language, say)


def _natural(name: str, rng: np.random.Generator) -> Voice:
    """A neural speaker, shifted in pitch and formants (0.84..1.2) at an unchanged tempo."""
    factor = 1.0 if rng.random() < 0.25 else float(rng.uniform(0.84, 1.2))
    speed = float(rng.uniform(0.85, 1.2)) / factor
    weights = rng.dirichlet(np.full(len(_KOKORO_TRAINING), 0.6))
    british = bool(rng.random() < 0.4)

    def say(text: str, rng: np.random.Generator) -> Utterance:
        if name == "hibari":
            spoken = hibari_voice(british=british).say(text, rng, speed)
        elif name == "joe":
            spoken = piper_joe().say(text, rng, speed)
        else:
            mixture = dict(zip(_KOKORO_TRAINING, weights.tolist(), strict=True))
            spoken = KokoroVoice(mixture).say(text, speed)
        return _finished(shifted(spoken, factor))

    return Voice(f"{name}-x{factor:.2f}", "en", say)


def training_voice(rng: np.random.Generator, kokoro_share: float = 0.08) -> Voice:
    """Draw a speaker: 42 % formant voices in many languages, the rest natural English ones.

    Kokoro takes about a third of real time to speak; `kokoro_share` bounds what it costs.
    """
    draw = float(rng.random())
    if draw < 0.42:
        code = str(rng.choice(sorted(_ESPEAK_LANGUAGES)))
        variant = str(rng.choice(_ESPEAK_VARIANTS))
        name = f"{code}+{variant}" if variant else code
        return _espeak(name, _ESPEAK_LANGUAGES[code], rng)
    if draw < 0.42 + kokoro_share:
        return _natural("kokoro", rng)
    return _natural("hibari" if rng.random() < 0.5 else "joe", rng)


def held_out_voice(name: str, rng: np.random.Generator) -> Voice:
    """One of `HELD_OUT_VOICES`.

    Raises:
        ValueError: `name` is not one of them.
    """
    if name == "kokoro-kumo":
        voice = KokoroVoice({"jm_kumo": 1.0})
        return Voice(name, "en", lambda text, rng: _finished(voice.say(text)))
    if name == "espeak-pt-br+f4":
        return Voice(name, "pt", _espeak("pt-br+f4", "pt", rng).say)
    raise ValueError(f"voice={name!r} is not held out; choose from {HELD_OUT_VOICES}")


def _finished(utterance: Utterance) -> Utterance:
    return refined(_levelled(utterance))


def _levelled(utterance: Utterance) -> Utterance:
    """Scale the speech's active parts to -22 dB full scale, so that voices are equally loud."""
    pcm = utterance.pcm
    blocks = len(pcm) // (SAMPLE_RATE // 50)
    if blocks == 0:
        return utterance
    power = np.mean(pcm[: blocks * 320].reshape(blocks, 320) ** 2, axis=1)
    active = power[power > 0.01 * power.max()]
    if not len(active) or active.mean() <= 0.0:
        return utterance
    gain = 10 ** (_ACTIVE_LEVEL_DB / 20) / np.sqrt(active.mean())
    return Utterance((pcm * gain).astype(np.float32), utterance.phonemes)
