"""How the mouth answers recordings of people, whose true opening nobody knows: against loudness.

Legend: N frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import signal  # type: ignore[import-untyped]

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.training.evaluation.statistics import Series, synchrony
from visavis.training.evaluation.talking import as_int16, play
from visavis.training.landmarks import IndependentLandmarker, mouth_opening
from visavis.training.speech.audio_files import read_recording
from visavis.training.speech.phonemes import SAMPLE_RATE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FPS: Final = 25
# Vowels open the mouth: their formants, not the hiss of an s, are what loudness is taken of.
VOWEL_BAND: Final = (250.0, 3000.0)
FLOOR_DB: Final = -40.0
PAUSE_DB: Final = -30.0
SHORTEST_PAUSE: Final = 5
SUFFIXES: Final = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One portrait speaking one recording; frames uint8 [N, H, W, 3], loudness in dB below the
    recording's loudest [N], opening in eye distances [N]."""

    name: str
    frames: NDArray[np.uint8]
    loudness: Series
    opening: Series

    def without_frames(self) -> "Response":
        """The same for the figures alone."""
        return replace(self, frames=self.frames[:0])


def find_recordings(folder: Path) -> list[Path]:
    """The folder's recordings by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def respond(
    engine: AvatarEngine,
    avatar: Avatar,
    path: Path,
    landmarker: IndependentLandmarker,
    *,
    seconds: float,
    seed: int,
    num_steps: int,
) -> Response:
    """Let the avatar speak the recording's first `seconds`."""
    pcm = read_recording(path, SAMPLE_RATE)[: int(seconds * SAMPLE_RATE)]
    frames = play(engine, avatar, as_int16(pcm), seed=seed, num_steps=num_steps).frames
    return Response(
        name=path.stem,
        frames=frames,
        loudness=loudness(pcm)[: len(frames)],
        opening=mouth_opening(landmarker.detect(frames)),
    )


def loudness(pcm: NDArray[np.float32]) -> Series:
    """Level of the vowels' band in every frame [N], in dB below the loudest, not below the floor.

    Smoothed over three frames, as lips smooth what they say.
    """
    band = signal.sosfilt(
        signal.butter(4, VOWEL_BAND, "bandpass", fs=SAMPLE_RATE, output="sos"), pcm
    )
    size = SAMPLE_RATE // FPS
    count = -(-len(band) // size)
    power = np.pad(band, (0, count * size - len(band))).reshape(count, size)
    mean = np.convolve(np.square(power).mean(axis=1), np.ones(3) / 3, mode="same")
    level: Series = 10 * np.log10(np.maximum(mean, 1e-10))
    below: Series = np.maximum(level - level.max(), FLOOR_DB)
    return below


def pauses(level: Series) -> NDArray[np.bool_]:
    """Frames [N] inside pauses of the sound, see `inside_pauses`."""
    return inside_pauses(level <= PAUSE_DB)


def inside_pauses(quiet: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Frames [N] inside quiet stretches of at least `SHORTEST_PAUSE` frames, their first and last
    two left out: lips open before a sound."""
    inside = np.zeros(len(quiet), bool)
    start = 0
    for end in range(len(quiet) + 1):
        if end < len(quiet) and quiet[end]:
            continue
        if end - start >= SHORTEST_PAUSE:
            inside[start + 2 : end - 2] = True
        start = end + 1
    return inside


def recording_figures(responses: Sequence[Response]) -> dict[str, float]:
    """Mean correlation of opening and loudness at the best common lag, and the median opening in
    pauses, beyond rest, in parts of the recording's own range."""
    sync = synchrony([(response.opening, response.loudness) for response in responses])
    shares = []
    for response in responses:
        quiet = response.opening[pauses(response.loudness)]
        rest, wide = np.quantile(response.opening, (0.02, 0.95))
        if len(quiet) and wide > rest:
            shares.append((np.median(quiet) - rest) / (wide - rest))
    figures = {"recordings_r": sync.r, "recordings_lag_frames": float(sync.lag_frames)}
    if shares:
        figures["recordings_pause_opening"] = float(np.mean(shares))
    return figures


def plot_recordings(responses: Sequence[Response], path: Path, *, seconds: float = 10.0) -> None:
    """Loudness (grey) and opening (line) over time, and a frame every second below."""
    figure, axes = plt.subplots(
        2 * len(responses), 1, figsize=(12, 2.9 * len(responses)), squeeze=False
    )
    for number, response in enumerate(responses):
        count = min(len(response.opening), int(seconds * FPS))
        at = np.arange(count) / FPS
        above, below = axes[2 * number, 0], axes[2 * number + 1, 0]
        share = 1 - response.loudness[:count] / FLOOR_DB
        above.fill_between(at, share, color="0.85", label="loudness of the vowels' band")
        wide = max(float(np.quantile(response.opening, 0.99)), 1e-3)
        above.plot(at, response.opening[:count] / wide, "C3", lw=1.3, label="mouth opening")
        above.set(xlim=(0, count / FPS), ylim=(0, 1.1), yticks=[])
        above.set_title(response.name, fontsize=9, loc="left")
        strip = np.concatenate(list(response.frames[FPS // 2 : count : FPS, ::2, ::2]), axis=1)
        below.imshow(strip)
        below.axis("off")
    axes[0, 0].legend(fontsize=8, ncol=2, loc="upper right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
