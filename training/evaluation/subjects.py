"""Who and what is evaluated: held-out portraits, voices and recordings."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.face.framing import Portrait
from visavis.training.codec_data import Puppet
from visavis.training.evaluation.recordings import SUFFIXES, find_recordings
from visavis.training.evaluation.silence import WIDE_QUANTILE
from visavis.training.evaluation.talking import speaks
from visavis.training.identity import Embeddings, IdentityJudge
from visavis.training.landmarks import IndependentLandmarker
from visavis.training.puppets.bank import HELD_OUT
from visavis.training.puppets.controls import lip_gap
from visavis.training.speech.eval_set import EvalClip

PORTRAITS_VARIABLE: Final = "VISAVIS_PORTRAITS"
DEFAULT_PORTRAITS: Final = Path("../shared/data/portraits")
RECORDINGS_VARIABLE: Final = "VISAVIS_RECORDINGS"
DEFAULT_RECORDINGS: Final = Path("../shared/data/speech")


class EvaluationDataError(ValueError):
    """The pictures or recordings for the evaluation are not there."""


def held_out_portraits(folder: Path | None) -> list[Path]:
    """The thirty held-out pictures, in a fixed order.

    Raises EvaluationDataError naming the folder and where to get the pictures.
    """
    chosen = folder or Path(os.environ.get(PORTRAITS_VARIABLE, DEFAULT_PORTRAITS))
    paths = [chosen / f"{name}.jpg" for name in sorted(HELD_OUT)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise EvaluationDataError(
            f"portraits={chosen} lacks {len(missing)} of the {len(paths)} held-out pictures, first "
            f"{missing[0].name}; get the CC0 collection faker-js/assets-person-portrait (docs/"
            f"training.md says how to name the files) and pass --portraits or set "
            f"{PORTRAITS_VARIABLE}"
        )
    # Women and men by turns, so that any first few are both.
    half = len(paths) // 2
    return [path for pair in zip(paths[:half], paths[half:], strict=True) for path in pair]


def spoken_recordings(folder: Path | None) -> list[Path]:
    """The recordings of a folder; none if no folder was named and the default is not there.

    Raises EvaluationDataError when a folder was named that holds none.
    """
    named = folder or os.environ.get(RECORDINGS_VARIABLE)
    found = find_recordings(Path(named) if named else DEFAULT_RECORDINGS)
    if named and not found:
        raise EvaluationDataError(
            f"recordings={named} holds no {', '.join(SUFFIXES)} files; name a folder that does"
        )
    return found


class Subjects:
    """Everything that the parts of an evaluation look at, prepared when it is first wanted."""

    def __init__(
        self,
        engine: AvatarEngine,
        portraits: Mapping[str, Callable[[], Portrait]],
        clips: Sequence[EvalClip],
        landmarker: IndependentLandmarker,
        identity: IdentityJudge,
        *,
        recordings: Sequence[Path] = (),
        photographs: Mapping[str, Callable[[], Portrait]] | None = None,
    ) -> None:
        """`portraits` and `photographs` frame a picture by name."""
        self.engine, self.clips = engine, list(clips)
        self.landmarker, self.identity = landmarker, identity
        self.names = list(portraits)
        self.recordings = list(recordings)
        self.photographs = {} if photographs is None else dict(photographs)
        self.portrait = cache(lambda name: {**self.photographs, **portraits}[name]())
        self.avatar = cache(self._avatar)
        self.puppet = cache(self._puppet)
        self.embedding = cache(self._embedding)

    @property
    def speaking(self) -> list[EvalClip]:
        """The clips that are speech."""
        return [clip for clip in self.clips if speaks(clip)]

    @property
    def wide_gap(self) -> float:
        """The lips' gap that counts as wide open: what the clips reach now and then."""
        gaps = [lip_gap(clip.controls) for clip in self.speaking]
        return float(np.quantile(np.concatenate(gaps), WIDE_QUANTILE))

    def pairs(self, count: int) -> list[tuple[str, EvalClip]]:
        """Portraits and clips, each as often as the next; the clip without speech is among them
        if there is more than one pair."""
        clips = self.clips
        if 1 < count < len(clips):
            wordless = [clip for clip in clips if not speaks(clip)]
            clips = [*self.speaking[: count - len(wordless)], *wordless]
        return [(self.names[i % len(self.names)], clips[i % len(clips)]) for i in range(count)]

    def strangers(self, name: str) -> Embeddings:
        """Embeddings [M, 128] of all the held-out portraits but this one.

        Raises EvaluationDataError where there is no other.
        """
        others = [self.embedding(other) for other in self.names if other != name]
        if not others:
            raise EvaluationDataError(
                f"portraits={self.names}: who somebody is shows beside others; give two or more"
            )
        return np.stack(others)

    def _avatar(self, name: str) -> Avatar:
        return self.engine.prepare_avatar(self.portrait(name))

    def _puppet(self, name: str) -> Puppet:
        return Puppet.of(name, self.portrait(name))

    def _embedding(self, name: str) -> Embeddings:
        embedded: Embeddings = self.identity.embed(self.portrait(name).image[None])[0]
        return embedded
