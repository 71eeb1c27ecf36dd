"""Clips of one speaker: silence, sentences, pauses, breathing spells, and what is to be heard."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.training.speech.augment import HEAVY, LIGHT, augmented, chords, coloured_noise
from visavis.training.speech.motion import clip_controls
from visavis.training.speech.phonemes import SAMPLE_RATE, Utterance, join, silence
from visavis.training.speech.text import SentenceSource
from visavis.training.speech.visemes import FPS
from visavis.training.speech.voices import Voice

_SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
_WORDLESS_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class Clip:
    """`utterance` is clean; `recordings` are float32 `[samples]` of the same length, augmented.

    `controls` is float32 `[frames, 15]`, samples = 640 * frames.
    """

    voice: str
    utterance: Utterance
    recordings: tuple[NDArray[np.float32], ...]
    controls: NDArray[np.float32]


def make_clip(
    voice: Voice,
    sources: Mapping[str, SentenceSource],
    rng: np.random.Generator,
    *,
    recordings: int = 3,
) -> Clip:
    """20 to 40 s; one in 17 clips has only noise, music or nothing, and a mouth that stays shut."""
    if rng.random() < _WORDLESS_SHARE:
        return _wordless_clip(rng, recordings)
    utterance = whole_frames(_monologue(voice, sources[voice.language], rng))
    controls = clip_controls(utterance, rng)
    return Clip(voice.name, utterance, recorded(utterance.pcm, rng, recordings), controls)


def recorded(
    pcm: NDArray[np.float32], rng: np.random.Generator, recordings: int
) -> tuple[NDArray[np.float32], ...]:
    """Clean speech as so many microphones hear it, the first of them a good one; of a clip without
    a word, so many sounds that are none."""
    if not pcm.any():
        return tuple(_wordless_sound(len(pcm), rng) for _ in range(recordings))
    return tuple(augmented(pcm, rng, LIGHT if i == 0 else HEAVY) for i in range(recordings))


def _monologue(voice: Voice, source: SentenceSource, rng: np.random.Generator) -> Utterance:
    target = rng.uniform(20.0, 36.0)
    parts = [silence(_opening_silence(rng))]
    while sum(p.seconds for p in parts) < target:
        spoken = voice.say(source.sentence(rng), rng)
        gain = np.float32(10 ** (rng.normal(0.0, 1.5) / 20))
        parts.append(Utterance(spoken.pcm * gain, spoken.phonemes))
        long_pause = rng.random() < 0.14
        parts.append(silence(rng.uniform(1.2, 5.0) if long_pause else rng.uniform(0.05, 0.7)))
    parts.append(silence(rng.uniform(0.1, 1.5)))
    return join(parts)


def _opening_silence(rng: np.random.Generator) -> float:
    return float(rng.uniform(2.0, 5.0) if rng.random() < 0.2 else rng.uniform(0.05, 1.2))


def _wordless_clip(rng: np.random.Generator, recordings: int) -> Clip:
    utterance = whole_frames(silence(float(rng.uniform(20.0, 32.0))))
    heard = recorded(utterance.pcm, rng, recordings)
    return Clip("none", utterance, heard, clip_controls(utterance, rng))


def _wordless_sound(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise, music or nothing."""
    kind, level = rng.random(), 10 ** (rng.uniform(-60, -18) / 20)
    pcm = np.zeros(samples)
    if kind < 0.45:
        pcm = coloured_noise(samples, rng) * level
    elif kind < 0.85:
        pcm = chords(samples, rng) * level
    return np.clip(pcm, -1.0, 1.0).astype(np.float32)


def whole_frames(utterance: Utterance) -> Utterance:
    """Silence added at the end, to a whole number of frames."""
    missing = -len(utterance.pcm) % _SAMPLES_PER_FRAME
    return join([utterance, silence(missing / SAMPLE_RATE)])
