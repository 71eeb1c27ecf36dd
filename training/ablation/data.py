"""What all rows of the table share: speech, portraits, and a track of speech kept back."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from visavis.training.ablation.chunk_bank import ChunkBank, HeardChunks
from visavis.training.ablation.hand_over import RecordedErrors
from visavis.training.dit_data import FocusSpec, MotionWindows, PortraitBank, SpeechClips
from visavis.training.hearing import Hearing
from visavis.training.puppets.basis import control_weights
from visavis.training.speech.dataset import read_shards
from visavis.training.training_data import FOCUS_COMPONENTS, HELD_CLIPS, LIP_COMPONENTS

ERRORS_FILE: Final = "hand-over-errors.npz"


@dataclass(frozen=True, slots=True)
class AblationData:
    """`train` draws what is learnt from; `held` has clips and portraits that training never sees,
    and errors of other people.

    Both have the attributes that a `TeacherRun` asks its data for.
    """

    train: ChunkBank
    held: ChunkBank
    train_errors: RecordedErrors
    held_errors: RecordedErrors

    @classmethod
    def load(
        cls,
        speech: Path,
        bank: Path,
        encoder: Path,
        cache: Path,
        *,
        chunk_frames: int,
        shards: int = 6,
        focus_weight: float = 6.0,
    ) -> "AblationData":
        """The first shards' clips: ten kept back (as the large trainers do), the others to train.

        Chunks are heard once and kept in `cache`, where the hand-overs' recorded errors lie.
        """
        hearing = Hearing.load(encoder)
        clips = first_clips(speech, shards)
        portraits = PortraitBank.load(bank)
        focus = FocusSpec(FOCUS_COMPONENTS, focus_weight, LIP_COMPONENTS)
        banks = []
        for held, index in (
            (False, np.arange(HELD_CLIPS, len(clips.lengths))),
            (True, np.arange(HELD_CLIPS)),
        ):
            part = clips.subset(index)
            name = f"heard-{'held' if held else 'train'}-{chunk_frames}.npz"
            heard = HeardChunks.load(cache / name, part, hearing, chunk_frames)
            windows = MotionWindows(part, portraits, control_weights, focus, hearing, held=held)
            banks.append(ChunkBank(windows, heard, chunk_frames))
        train_errors, held_errors = RecordedErrors.load(cache / ERRORS_FILE).split()
        train, held_back = banks
        return cls(train, held_back, train_errors, held_errors)


def first_clips(speech: Path, shards: int) -> SpeechClips:
    """Clips of the first shards; raises ValueError if there is none."""
    parts = [
        SpeechClips(shard.features, shard.controls, shard.offsets)
        for shard in islice(read_shards(speech), shards)
    ]
    if not parts:
        raise ValueError(f"speech={speech} has no shard; run visavis train speech")
    return SpeechClips.concatenate(parts)
