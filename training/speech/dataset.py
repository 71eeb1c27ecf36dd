"""Write the speech data set: features and controls of many clips.

    python -m visavis.training.speech.dataset --out runs/speech --hours 4 --seed 0

A shard holds about ten minutes: `features`, `features_1`, `features_2` float16 [frames, 4, 64] are
three recordings of the same speech, `controls` float32 [frames, 15] their common truth, `voice`
[clips] the speakers, `offsets` [clips + 1] where clips start, `audio` int16 [frames * 640] the
clean speech. Finished shards are skipped, so a broken run goes on where it stopped.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from visavis.engine.audio.mel import mel_features
from visavis.training.speech.clips import make_clip
from visavis.training.speech.text import SentenceSource
from visavis.training.speech.voices import training_voice

SHARD_MINUTES = 10
RECORDINGS = 3
_FRAMES_PER_SHARD = SHARD_MINUTES * 60 * 25


@dataclass(frozen=True, slots=True)
class SpeechShard:
    """One shard in memory; `features` `[recordings, frames, 4, 64]` float16."""

    features: NDArray[np.float16]
    controls: NDArray[np.float32]
    voices: tuple[str, ...]
    offsets: NDArray[np.int64]


@cache
def _source(language: str) -> SentenceSource:
    return SentenceSource(language)


class _Sources(dict[str, SentenceSource]):
    """Sentence sources by language, read when first asked for."""

    def __missing__(self, language: str) -> SentenceSource:
        return _source(language)


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` lies."""
    return folder / f"shard-{index:04d}.npz"


def write_shard(folder: Path, index: int, seed: int, kokoro_share: float) -> Path:
    """Make and write one shard, atomically. The same arguments make the same clips."""
    rng = np.random.default_rng([seed, index])
    features: list[list[NDArray[np.float16]]] = [[] for _ in range(RECORDINGS)]
    controls: list[NDArray[np.float32]] = []
    audio: list[NDArray[np.int16]] = []
    voices: list[str] = []
    offsets = [0]
    while offsets[-1] < _FRAMES_PER_SHARD:
        voice = training_voice(rng, kokoro_share)
        clip = make_clip(voice, _Sources(), rng, recordings=RECORDINGS)
        for column, pcm in zip(features, clip.recordings, strict=True):
            column.append(mel_features(pcm).astype(np.float16))
        controls.append(clip.controls)
        audio.append((np.clip(clip.utterance.pcm, -1, 1) * 32767).astype(np.int16))
        voices.append(clip.voice)
        offsets.append(offsets[-1] + len(clip.controls))
    save_shard(
        shard_path(folder, index),
        features,
        controls=np.concatenate(controls),
        audio=np.concatenate(audio),
        voice=np.array(voices),
        offsets=np.array(offsets),
    )
    return shard_path(folder, index)


def save_shard(
    path: Path, features: Sequence[Sequence[NDArray[np.float16]]], **arrays: Any
) -> None:
    """Write one shard, atomically; `features` has the clips of every recording."""
    partial = path.with_suffix(".part.npz")
    for number, clips in enumerate(features):
        arrays[f"features_{number}" if number else "features"] = np.concatenate(clips)
    np.savez(partial, **arrays)
    partial.replace(path)


def read_shards(folder: Path) -> Iterator[SpeechShard]:
    """The finished shards of a folder in order, without their audio."""
    for path in sorted(folder.glob("shard-????.npz")):
        with np.load(path) as data:
            names = sorted(n for n in data.files if n.startswith("features"))
            yield SpeechShard(
                features=np.stack([data[n] for n in names]),
                controls=data["controls"],
                voices=tuple(str(v) for v in data["voice"]),
                offsets=data["offsets"],
            )


def _polite() -> None:
    os.nice(5)


def build(folder: Path, hours: float, seed: int, processes: int, kokoro_share: float) -> None:
    """Write every missing shard of `hours` hours with a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    count = max(1, round(hours * 60 / SHARD_MINUTES))
    missing = [i for i in range(count) if not shard_path(folder, i).is_file()]
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(processes, initializer=_polite) as pool,
    ):
        task = progress.add_task("speech shards", total=count, completed=count - len(missing))
        futures = [pool.submit(write_shard, folder, i, seed, kokoro_share) for i in missing]
        for future in futures:
            future.result()
            progress.advance(task)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description="Make the synthetic speech data set.")
    parser.add_argument("--out", type=Path, default=Path("runs/speech"))
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    parser.add_argument(
        "--kokoro-share", type=float, default=0.04, help="of the clips; costs about real time"
    )
    options = parser.parse_args(arguments)
    build(options.out, options.hours, options.seed, options.processes, options.kokoro_share)


if __name__ == "__main__":
    main()
