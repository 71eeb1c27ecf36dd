"""The evaluation's speech: clips of held-out voices with known controls, part of the repository."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

FOLDER: Final = Path(__file__).parents[1] / "eval_speech"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationClip:
    """`pcm` int16 mono at `rate` Hz; `controls` float32 [frames, 15] at 25 fps."""

    name: str
    voice: str
    rate: int
    pcm: NDArray[np.int16]
    controls: NDArray[np.float32]
    speech: bool


def load_clips(folder: Path = FOLDER) -> list[EvaluationClip]:
    """Read `index.json` and what it names.

    Raises FileNotFoundError naming the file that is missing.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    clips = []
    for entry in index:
        rate, pcm = _read_audio(folder / entry["file"])
        controls = json.loads((folder / entry["controls"]).read_text(encoding="utf-8"))
        clips.append(
            EvaluationClip(
                name=entry["id"],
                voice=entry["voice"],
                rate=rate,
                pcm=pcm,
                controls=np.array(controls, np.float32),
                speech=bool(entry["speech"]),
            )
        )
    return clips


def _read_audio(path: Path) -> tuple[int, NDArray[np.int16]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=stream.rate)
        parts = [
            resampled.to_ndarray()[0]
            for frame in container.decode(stream)
            for resampled in resampler.resample(frame)
        ]
        parts += [resampled.to_ndarray()[0] for resampled in resampler.resample(None)]
        return stream.rate, np.concatenate(parts).astype(np.int16)
