"""What the embedded model's stages read: speech and portraits, some of both held back."""

from pathlib import Path

import numpy as np

from visavis.training.codec_data import CROPS_FILE, PuppetShow
from visavis.training.control_probe import ControlProbe
from visavis.training.dit_data import FocusSpec, MotionWindows, PortraitBank, SpeechClips
from visavis.training.hearing import Hearing
from visavis.training.progress import log
from visavis.training.puppets.basis import WEIGHTS, control_weights
from visavis.training.validation import ValidationSet

FOCUS_COMPONENTS = tuple(
    WEIGHTS.index(name)
    for name in ("jaw", "upper_lip", "lower_lip", "wide", "narrow", "blink_l", "blink_r")
)
LIP_COMPONENTS = tuple(
    WEIGHTS.index(name) for name in ("jaw", "upper_lip", "lower_lip", "wide", "narrow", "press")
)
HELD_CLIPS = 10


class TrainingData:
    """Windows to train on, and sequences of portraits and clips that training never sees.

    The first ten clips are kept back. Speech may still be in the making: `refresh` takes in shards
    that were finished since.
    """

    def __init__(
        self,
        speech: Path,
        bank: Path,
        hearing: Hearing,
        *,
        focus_weight: float = 1.0,
        sequences: int,
        chunks: int,
    ) -> None:
        self.hearing = hearing
        self._speech = speech
        self._portraits = PortraitBank.load(bank)
        self.probe = ControlProbe.from_basis(self._portraits.basis, self._portraits.rest)
        self._focus = FocusSpec(FOCUS_COMPONENTS, focus_weight, LIP_COMPONENTS)
        self._shards = count_shards(speech)
        clips = SpeechClips.load(speech)
        kept_back = clips.subset(np.arange(HELD_CLIPS))
        self.train = self._training_windows(clips)
        held = MotionWindows(
            kept_back, self._portraits, control_weights, self._focus, hearing, held=True
        )
        self.validation = ValidationSet.draw(held, sequences, chunks, puppets=_puppets(bank.parent))

    def _training_windows(self, clips: SpeechClips) -> MotionWindows:
        used = clips.subset(np.arange(HELD_CLIPS, len(clips.lengths)))
        return MotionWindows(used, self._portraits, control_weights, self._focus, self.hearing)

    def refresh(self) -> bool:
        """Read the speech again if there is more of it; true if so."""
        shards = count_shards(self._speech)
        if shards == self._shards:
            return False
        self._shards = shards
        self.train = self._training_windows(SpeechClips.load(self._speech))
        log.info("%d clips of speech now", len(self.train.clips.lengths))
        return True


def open_data(
    speech: Path,
    bank: Path,
    encoder: Path,
    *,
    focus_weight: float = 1.0,
    sequences: int,
    chunks: int,
) -> TrainingData:
    """`TrainingData` for a command: what is missing ends the program with its name."""
    try:
        return TrainingData(
            speech,
            bank,
            Hearing.load(encoder),
            focus_weight=focus_weight,
            sequences=sequences,
            chunks=chunks,
        )
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename}: no such file; run the stage that makes it") from None
    except ValueError as error:
        raise SystemExit(str(error)) from None


def _puppets(folder: Path) -> PuppetShow | None:
    """The held-out portraits' pictures, for contact sheets."""
    if (folder / CROPS_FILE).is_file():
        return PuppetShow(folder, held=True)
    log.warning("%s has no %s: contact sheets come without faces", folder, CROPS_FILE)
    return None


def count_shards(speech: Path) -> int:
    """Finished shards in the folder."""
    return len(list(speech.glob("shard-????.npz")))
