"""What rooms, microphones and telephones do to speech, and sounds that are no speech.

Every function keeps the number of samples and does not move speech in time, so that the controls
stay true.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal  # type: ignore[import-untyped]

from visavis.training.speech.phonemes import SAMPLE_RATE

Pcm = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How often each effect is applied."""

    equaliser: float = 0.6
    band_limit: float = 0.2
    reverb: float = 0.35
    noise: float = 0.75
    music: float = 0.2
    clipping: float = 0.08
    narrow_band: float = 0.1
    breath: float = 0.5
    babble: float = 0.2
    compression: float = 0.35


LIGHT = Strength(
    equaliser=0.4, band_limit=0.05, reverb=0.15, noise=0.5, music=0.05, clipping=0.0,
    narrow_band=0.03, breath=0.3, babble=0.05, compression=0.1,
)  # fmt: skip

# A pause that one may breathe in, and how far below the speech it is quiet, in dB.
_PAUSE_S = 0.25
_PAUSE_DB = -45.0
HEAVY = Strength()


def augmented(pcm: Pcm, rng: np.random.Generator, strength: Strength = HEAVY) -> Pcm:
    """A recording of `pcm` (float32 `[samples]`, 16 kHz) as somebody's microphone hears it."""
    out = pcm.astype(np.float64)
    level = _level(pcm)
    if rng.random() < strength.breath:
        out = out + breaths(pcm, level, rng)
    if rng.random() < strength.reverb:
        out = _reverb(out, rng)
    if rng.random() < strength.equaliser:
        out = _tilted(out, rng)
    if rng.random() < strength.babble:
        out = out + babble(pcm, rng) * 10 ** (rng.uniform(-36, -18) / 20)
    if rng.random() < strength.music:
        out = out + chords(len(out), rng) * level * 10 ** (rng.uniform(-30, -12) / 20)
    if rng.random() < strength.noise:
        out = out + coloured_noise(len(out), rng) * level * 10 ** (rng.uniform(-50, -14) / 20)
    if rng.random() < strength.band_limit:
        low, high = rng.uniform(100, 320), rng.uniform(3000, 6000)
        sos = signal.butter(3, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
        out = signal.sosfilt(sos, out)
    if rng.random() < strength.narrow_band:
        out = _telephone(out)
    if rng.random() < strength.compression:
        out = _compressed(out, rng)
    out = out * 10 ** (rng.uniform(-18.0, 6.0) / 20)
    if rng.random() < strength.clipping:
        limit = np.abs(out).max() * rng.uniform(0.4, 0.9) + 1e-9
        out = np.clip(out, -limit, limit)
    return np.clip(out, -1.0, 1.0).astype(np.float32)


def coloured_noise(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of unit power with a random slope between white and brown, its level wandering."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    hz = np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE)
    spectrum *= np.maximum(hz, 40.0) ** -rng.uniform(0.0, 1.2)
    noise = np.fft.irfft(spectrum, samples)
    if rng.random() < 0.4:  # mains hum
        mains = float(rng.choice([50.0, 60.0]))
        time = np.arange(samples) / SAMPLE_RATE
        hum = sum(np.sin(2 * np.pi * mains * k * time) / k for k in range(1, 6))
        noise = noise / (noise.std() + 1e-12) + rng.uniform(0.1, 1.0) * hum
    slow = np.interp(
        np.arange(samples), np.linspace(0, samples, 12), rng.uniform(-3.0, 3.0, size=12)
    )
    noise = noise * 10 ** (slow / 20)
    return np.asarray(noise / (noise.std() + 1e-12), np.float64)


def chords(samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Music of unit power: plucked or held chords with a beat of filtered noise, no voice."""
    out = np.zeros(samples)
    beat = int(SAMPLE_RATE * rng.uniform(0.28, 0.8))
    root = 110.0 * 2 ** (rng.integers(0, 12) / 12)
    held = rng.random() < 0.4
    drums = rng.random() < 0.5
    chord = np.array([0, 4, 7])
    for index, start in enumerate(range(0, samples, beat)):
        if index % 4 == 0:
            chord = rng.choice([0, 5, 7, 9, 2]) + np.array([0, int(rng.choice([3, 4])), 7, 12])
        length = min(beat * (4 if held else 1), samples - start)
        time = np.arange(length) / SAMPLE_RATE
        decay = np.exp(-time / (3.0 if held else rng.uniform(0.15, 0.6)))
        for semitone in chord:
            frequency = root * 2 ** (semitone / 12)
            overtones = range(1, int(rng.integers(3, 8)))
            tone = sum(np.sin(2 * np.pi * frequency * k * time) / k**1.3 for k in overtones)
            out[start : start + length] += tone * decay * np.minimum(1.0, time / 0.01)
        if drums:
            hit = rng.normal(size=length) * np.exp(-time / 0.04)
            out[start : start + length] += hit * rng.uniform(0.5, 2.0)
    return np.asarray(out / (out.std() + 1e-12), np.float64)


def breaths(pcm: Pcm, level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Breath drawn in some of the pauses: hiss between 0.3 and 5 kHz that swells and dies away, to
    be added to `pcm`, whose speech has that level."""
    out = np.zeros(len(pcm))
    for start, end in _pauses(pcm, level):
        if rng.random() < 0.5:
            continue
        length = int(min(end - start, SAMPLE_RATE * rng.uniform(0.15, 0.5)))
        at = int(rng.integers(start, end - length + 1))
        low, high = rng.uniform(300, 900), rng.uniform(2000, 5000)
        sos = signal.butter(2, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
        hiss = signal.sosfilt(sos, rng.normal(size=length))
        swell = np.sin(np.pi * np.linspace(0, 1, length) ** rng.uniform(0.6, 1.6)) ** 2
        loud = level * 10 ** (rng.uniform(-45, -20) / 20)
        out[at : at + length] = hiss * swell * loud / (np.sqrt(np.mean(hiss**2)) + 1e-12)
    return out


def babble(pcm: Pcm, rng: np.random.Generator) -> NDArray[np.float64]:
    """People who talk in the background, as loud in all as `pcm`: itself backwards and moved in
    time, one to four times over."""
    backwards = pcm[::-1].astype(np.float64)
    voices = [
        np.roll(backwards, int(rng.integers(len(pcm)))) for _ in range(int(rng.integers(1, 5)))
    ]
    return np.asarray(np.sum(voices, axis=0) / np.sqrt(len(voices)), np.float64)


def _pauses(pcm: Pcm, level: float) -> list[tuple[int, int]]:
    """First and last sample of every pause."""
    block = SAMPLE_RATE // 100
    power = np.mean(pcm[: len(pcm) // block * block].reshape(-1, block).astype(np.float64) ** 2, 1)
    quiet = power < level**2 * 10 ** (_PAUSE_DB / 10)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.view(np.int8), [0]])))
    pairs = edges.reshape(-1, 2) * block
    return [(int(a), int(b)) for a, b in pairs if b - a >= _PAUSE_S * SAMPLE_RATE]


def _compressed(out: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A broadcaster's or a telephone's automatic gain: what is soft comes up, rooms and breath
    too."""
    block = SAMPLE_RATE // 200
    count = -(-len(out) // block)
    power = np.pad(out, (0, count * block - len(out))).reshape(count, block)
    envelope = np.sqrt(np.mean(power**2, axis=1))
    rise, fall = 1 - np.exp(-5.0 / rng.uniform(3, 15)), 1 - np.exp(-5.0 / rng.uniform(60, 400))
    held = 0.0
    for index, now in enumerate(envelope):
        held += (rise if now > held else fall) * (now - held)
        envelope[index] = held
    loudest = envelope.max() + 1e-12
    gain = (envelope / loudest + 10 ** (rng.uniform(-50, -35) / 20)) ** -rng.uniform(0.2, 0.6)
    middle = (np.arange(count) + 0.5) * block
    return np.asarray(out * np.interp(np.arange(len(out)), middle, gain), np.float64)


def _level(pcm: Pcm) -> float:
    """Root mean square of the speech's active parts; a room's own level where there is none."""
    blocks = pcm[: len(pcm) // 320 * 320].reshape(-1, 320)
    power = np.mean(blocks.astype(np.float64) ** 2, axis=1) if len(blocks) else np.zeros(1)
    active = power[power > 0.01 * power.max()]
    return float(np.sqrt(active.mean())) if len(active) and active.mean() > 1e-10 else 0.08


def _reverb(out: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    length = int(SAMPLE_RATE * rng.uniform(0.08, 0.35))
    decay = np.exp(-6.9 * np.arange(length) / length)
    tail = rng.normal(size=length) * decay
    tail[: int(0.003 * SAMPLE_RATE)] = 0.0
    tail *= rng.uniform(0.15, 0.6) / np.sqrt(np.sum(tail**2) + 1e-12)
    tail[0] = 1.0  # the direct sound stays where it is
    return np.asarray(signal.fftconvolve(out, tail)[: len(out)], np.float64)


def _tilted(out: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random equaliser: a slope of up to 4 dB an octave and one resonance of 6 dB."""
    spectrum = np.fft.rfft(out)
    hz = np.maximum(np.fft.rfftfreq(len(out), 1.0 / SAMPLE_RATE), 30.0)
    octaves = np.log2(hz / 1000.0)
    centre = rng.uniform(-3.0, 2.5)
    gain_db = rng.uniform(-3.0, 3.0) * octaves
    gain_db += rng.uniform(-6.0, 6.0) * np.exp(-(((octaves - centre) / 0.7) ** 2))
    return np.fft.irfft(spectrum * 10 ** (np.clip(gain_db, -18, 18) / 20), len(out))


def _telephone(out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Down to 8 kHz and back, with zero-phase filters so that nothing is delayed."""
    narrow = signal.resample_poly(out, 1, 2)
    return np.asarray(signal.resample_poly(narrow, 2, 1)[: len(out)])
