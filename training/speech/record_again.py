"""Record the clips of a speech data set once more, with what augmentation does by now.

    python -m visavis.training.speech.record_again --speech runs/speech --out runs/speech-again

What is said and how the face moves stay as they are; no synthesiser is needed. Finished shards are
skipped.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from visavis.engine.audio.mel import mel_features
from visavis.training.speech.clips import recorded
from visavis.training.speech.dataset import save_shard


def record_again(source: Path, target: Path, recordings: int, seed: int) -> None:
    """Write the shard `source` to `target`, with so many new recordings of every clip."""
    rng = np.random.default_rng([seed, int(source.stem.rpartition("-")[2])])
    with np.load(source) as shard:
        kept = {n: shard[n] for n in ("controls", "audio", "voice", "offsets")}
    samples = len(kept["audio"]) // len(kept["controls"])
    features: list[list[NDArray[np.float16]]] = [[] for _ in range(recordings)]
    for begin, end in zip(kept["offsets"], kept["offsets"][1:], strict=False):
        clean = kept["audio"][begin * samples : end * samples].astype(np.float32) / 32767
        for clips, pcm in zip(features, recorded(clean, rng, recordings), strict=True):
            clips.append(mel_features(pcm).astype(np.float16))
    save_shard(target, features, **kept)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description="Record a speech data set's clips once more.")
    parser.add_argument("--speech", type=Path, default=Path("runs/speech"))
    parser.add_argument("--out", type=Path, default=Path("runs/speech-again"))
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2))
    options = parser.parse_args(arguments)
    shards = sorted(options.speech.glob("shard-????.npz"))
    if not shards:
        parser.error(f"--speech {options.speech} has no shard; run `visavis train speech`")
    if options.out.resolve() == options.speech.resolve():
        parser.error("--out must be another folder than --speech")
    options.out.mkdir(parents=True, exist_ok=True)
    missing = [path for path in shards if not (options.out / path.name).is_file()]
    with ProcessPoolExecutor(options.processes) as pool:
        jobs = [
            pool.submit(
                record_again, path, options.out / path.name, options.recordings, options.seed
            )
            for path in missing
        ]
        for job in track(jobs, "shards recorded"):
            job.result()


if __name__ == "__main__":
    main()
