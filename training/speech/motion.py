"""Everything of a speaker that moves besides the mouth: head, eyelids, brows, smile, breath.

All of it is noise of a stationary process or a train of short events, so that a clip may be cut
anywhere: nothing ramps up at the start and nothing drifts away.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visavis.training.puppets.controls import CONTROLS, INDEX
from visavis.training.speech.phonemes import PAUSE, SAMPLE_RATE, Phoneme, Utterance
from visavis.training.speech.visemes import FPS, MOUTH_CONTROLS, VOWELS, atoms, mouth_curves

_CALM = 0.55  # how much a silent head moves, of a speaking one's motion
_BREATHS_PER_S = 0.25
_BLINK_GAP_S = (2.0, 6.0)


def clip_controls(utterance: Utterance, rng: np.random.Generator) -> NDArray[np.float32]:
    """The whole row of controls, `[ceil(seconds * 25), 15]`, within the ranges of `CONTROLS`."""
    frames = -(-len(utterance.pcm) * FPS // SAMPLE_RATE)
    controls = np.zeros((frames, len(CONTROLS)), np.float32)
    mouth = mouth_curves(utterance, frames, openness=float(rng.uniform(0.92, 1.08)))
    for column, name in enumerate(MOUTH_CONTROLS):
        controls[:, INDEX[name]] = mouth[:, column]
    sounds = atoms(utterance.phonemes)
    speaking = speech_activity(sounds, frames)
    stresses = _stresses(utterance, sounds, rng)
    for name, curve in head_curves(speaking, stresses, rng).items():
        controls[:, INDEX[name]] = curve
    lids = blinks(frames, rng)
    controls[:, INDEX["blink_l"]], controls[:, INDEX["blink_r"]] = lids.T
    return controls


def speech_activity(sounds: Sequence[Phoneme], frames: int) -> NDArray[np.float64]:
    """0 in silence .. 1 while speaking, eased over about 0.4 s; `[frames]`."""
    centres = (np.arange(frames) + 0.5) / FPS
    active = np.zeros(frames)
    for sound in sounds:
        if sound.ipa != PAUSE:
            active[(centres >= sound.start - 0.02) & (centres < sound.end + 0.02)] = 1.0
    kernel = np.hanning(23)[1:-1]
    padded = np.pad(active, 10, mode="edge")
    return np.asarray(np.convolve(padded, kernel / kernel.sum(), mode="valid"), np.float64)


def smooth_noise(
    frames: int, rng: np.random.Generator, *, slowest_s: float, fastest_s: float
) -> NDArray[np.float64]:
    """Stationary Gaussian noise of unit variance with periods between two lengths of time."""
    length = frames + 40 * FPS  # a piece of a longer loop: the ends do not meet
    frequency = np.fft.rfftfreq(length, 1.0 / FPS)
    low, high = 1.0 / slowest_s, 1.0 / fastest_s
    gain = np.where(frequency > 0, 1.0 / (1.0 + (np.maximum(frequency, 1e-9) / high) ** 4), 0.0)
    gain *= (frequency / low) ** 2 / (1.0 + (frequency / low) ** 2)  # mean-reverting
    gain /= np.sqrt(1.0 + (frequency / (2 * low)) ** 2)
    spectrum = gain * (rng.normal(size=len(gain)) + 1j * rng.normal(size=len(gain)))
    noise = np.fft.irfft(spectrum, length)
    scale = np.sqrt(2.0 * np.sum(gain[1:-1] ** 2)) * np.sqrt(2.0) / length
    first = int(rng.integers(length - frames + 1))
    return np.asarray(noise[first : first + frames] / scale, np.float64)


def head_curves(
    speaking: NDArray[np.float64],
    stresses: Sequence[tuple[float, float]],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Head pose, brow and smile of `[frames]` each; `stresses` are (seconds, strength 0..1)."""
    frames = len(speaking)
    seconds = (np.arange(frames) + 0.5) / FPS
    vivid = (_CALM + (1.0 - _CALM) * speaking) * rng.uniform(0.8, 1.2)

    def sway(rms: float, slowest_s: float, fastest_s: float) -> NDArray[np.float64]:
        return rms * smooth_noise(frames, rng, slowest_s=slowest_s, fastest_s=fastest_s)

    yaw = (sway(0.30, 6.0, 1.4) + sway(0.08, 1.5, 0.5) * speaking) * vivid
    roll = (sway(0.26, 7.0, 1.6) + 0.25 * yaw) * vivid
    pitch = (sway(0.24, 6.0, 1.3) + sway(0.07, 1.2, 0.45) * speaking) * vivid
    brow = sway(0.08, 8.0, 1.0)
    for time, strength in stresses:
        nod = _bump(seconds, time, rise_s=0.16, fall_s=0.32)
        pitch += rng.uniform(0.10, 0.32) * strength * nod
        yaw += rng.normal(0.0, 0.06) * strength * nod
        if rng.random() < 0.30:
            raised = _bump(seconds, time + rng.uniform(-0.1, 0.1), rise_s=0.20, fall_s=0.55)
            brow += rng.uniform(0.25, 0.65) * strength * raised
    phase = 2 * np.pi * (_BREATHS_PER_S * rng.uniform(0.85, 1.15) * seconds + rng.random())
    breath = 0.05 * np.sin(phase)
    curves = {
        "yaw": yaw,
        "pitch": pitch + breath,
        "roll": roll,
        "tx": 0.30 * yaw + sway(0.20, 8.0, 1.6) * vivid,
        "ty": 0.25 * pitch + sway(0.14, 8.0, 1.6) * vivid + 1.2 * breath,
        "zoom": sway(0.22, 9.0, 1.8) * vivid,
        "brow": brow,
        "smile": rng.uniform(0.0, 0.15) + sway(0.16, 9.0, 1.8),
    }
    return {name: np.tanh(curve) for name, curve in curves.items()}


def blinks(frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Left and right eyelid, `[frames, 2]`: shut in 2 to 3 frames, open in 4 to 5."""
    centres = (np.arange(frames) + 0.5) / FPS
    lids = np.zeros((frames, 2))
    time = float(rng.uniform(-_BLINK_GAP_S[1], _BLINK_GAP_S[0]))
    while time < frames / FPS + 1.0:
        for start in [time, time + rng.uniform(0.32, 0.45)][: 2 if rng.random() < 0.12 else 1]:
            middle = (np.floor(start * FPS) + 0.5) / FPS  # the shut lid meets a frame's centre
            shut_s, open_s = rng.uniform(0.09, 0.12), rng.uniform(0.17, 0.22)
            depth = 1.0 if rng.random() < 0.85 else rng.uniform(0.6, 0.95)
            lag = rng.normal(0.0, 0.004)
            for eye, offset in enumerate((0.0, lag)):
                profile = _bump(
                    centres, middle + offset, rise_s=shut_s, fall_s=open_s, hold_s=0.016
                )
                lids[:, eye] = np.maximum(lids[:, eye], depth * profile)
        time += float(rng.uniform(*_BLINK_GAP_S))
    return np.clip(lids, 0.0, 1.0).astype(np.float32)


def _bump(
    seconds: NDArray[np.float64], peak: float, *, rise_s: float, fall_s: float, hold_s: float = 0.0
) -> NDArray[np.float64]:
    distance = seconds - peak
    before = np.clip(1.0 + (distance + hold_s) / rise_s, 0.0, 1.0)
    after = np.clip(1.0 - (distance - hold_s) / fall_s, 0.0, 1.0)
    x = np.minimum(before, after)
    return x * x * (3.0 - 2.0 * x)


def _stresses(
    utterance: Utterance, sounds: Sequence[Phoneme], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Loud, long vowels, at least 0.6 s apart: where a head nods."""
    candidates: list[tuple[float, float]] = []
    for sound in sounds:
        if sound.ipa in VOWELS and sound.end - sound.start > 0.06:
            piece = utterance.pcm[int(sound.start * SAMPLE_RATE) : int(sound.end * SAMPLE_RATE)]
            if len(piece):
                weight = float(np.sqrt(np.mean(piece**2))) * (sound.end - sound.start) ** 0.5
                candidates.append((sound.start + 0.04, weight))
    if not candidates:
        return []
    strong = float(np.percentile([w for _, w in candidates], 70))
    strongest = max(w for _, w in candidates)
    chosen: list[tuple[float, float]] = []
    for time, weight in candidates:
        apart = not chosen or time - chosen[-1][0] > 0.6
        if weight >= strong and apart and rng.random() < 0.7:
            chosen.append((time, 0.5 + 0.5 * weight / strongest))
    return chosen
