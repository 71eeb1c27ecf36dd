"""The committed evaluation clips: voices that training never heard, with the true controls.

Reading them needs no synthesiser. `eval_clips.py` makes them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.training.puppets.controls import CONTROLS
from visavis.training.speech.audio_files import read_flac
from visavis.training.speech.phonemes import SAMPLE_RATE, Phoneme

EVAL_FOLDER: Final = Path(__file__).resolve().parents[1] / "eval_speech"


@dataclass(frozen=True, slots=True)
class EvalClip:
    """`pcm` float32 `[640 * frames]` at 16 kHz; `controls` float32 `[frames, 15]` at 25 fps.

    `voice` is one of `HELD_OUT_VOICES`, or "none" for the clip without speech.
    """

    id: str
    voice: str
    text: str
    pcm: NDArray[np.float32]
    controls: NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]


def read_eval_clips(folder: Path = EVAL_FOLDER) -> list[EvalClip]:
    """All clips of the folder, in the order of their names.

    Raises:
        ValueError: the folder holds none.
    """
    clips = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        controls = np.stack([np.array(data["controls"][n], np.float32) for n in CONTROLS], axis=1)
        clips.append(
            EvalClip(
                id=data["id"],
                voice=data["voice"],
                text=data["text"],
                pcm=read_flac(path.with_suffix(".flac"), SAMPLE_RATE),
                controls=controls,
                phonemes=tuple(Phoneme(i, float(s), float(e)) for i, s, e in data["phonemes"]),
            )
        )
    if not clips:
        raise ValueError(
            f"folder={str(folder)!r} holds no evaluation clips; make them with "
            "`python -m visavis.training.speech.eval_clips`"
        )
    return clips
