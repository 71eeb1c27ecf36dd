"""Speech cut at chunk borders, and what is heard of each chunk encoded once.

A chunk's features depend on where it ends (nothing later is known), so the speech encoder has to
hear each chunk for itself. In a table of many short runs that would cost more than the transformer
that is compared. So chunks lie on a grid of their own new frames here, and are heard beforehand.

Legend: N chunks, B samples, F frames of a chunk, W audio window, L layers, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.audio.window import WINDOW
from visavis.engine.codec.motion_latents import pack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.dit_data import MotionWindows, SequenceBatch, SpeechClips, WindowBatch
from visavis.training.hearing import Hearing


@dataclass(frozen=True, slots=True)
class HeardChunks:
    """Features float16 [N, F + 2, L, C] of all chunks of all clips, clip by clip.

    Chunk i of clip c is row starts[c] + i and begins at the clip's frame i (F - 5).
    """

    features: Tensor
    starts: tuple[int, ...]

    @classmethod
    def hear(cls, clips: SpeechClips, hearing: Hearing, chunk_frames: int) -> "HeardChunks":
        """Encode every chunk of the clips' first recording, as the engine would hear it."""
        new = chunk_frames - MOTION_FRAMES
        pieces, starts = [], [0]
        for begin, end in zip(clips.offsets[:-1], clips.offsets[1:], strict=True):
            mel = clips.features[0, begin:end]
            count = chunks_in(int(end - begin), chunk_frames)
            rows = [hearing.rows(mel, i * new, chunk_frames) for i in range(count)]
            if rows:
                windows = hearing.windows(torch.stack(rows))
                pieces.append(_rows_of(windows).half())
            starts.append(starts[-1] + count)
        if not pieces:
            raise ValueError(
                f"no clip holds a chunk of {chunk_frames} frames; add speech or shorten the chunk"
            )
        return cls(torch.cat(pieces), tuple(starts))

    @classmethod
    def load(
        cls, path: Path, clips: SpeechClips, hearing: Hearing, chunk_frames: int
    ) -> "HeardChunks":
        """As `hear`, from the file if it is of these clips; else the file is written."""
        if path.exists():
            with np.load(path) as file:
                known = cls(torch.from_numpy(file["features"]), tuple(file["starts"].tolist()))
            expected = [chunks_in(int(n), chunk_frames) for n in clips.lengths]
            fits = known.features.shape[1] == chunk_frames + WINDOW_REACH
            if fits and np.diff(known.starts).tolist() == expected:
                return known
        heard = cls.hear(clips, hearing, chunk_frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, features=heard.features.numpy(), starts=np.array(heard.starts))
        return heard

    def windows(self, chunks: Tensor) -> Tensor:
        """Audio windows float32 [..., F, W, L, C] of the rows `chunks` (int64, any shape)."""
        rows = self.features[chunks].float()
        last = rows.shape[-3] - 1
        index = torch.arange(last + 1 - WINDOW_REACH)[:, None] + torch.arange(WINDOW)
        gathered: Tensor = rows[..., index.clamp(max=last), :, :]
        return gathered


def chunks_in(frames: int, chunk_frames: int) -> int:
    """Whole chunks in a clip of so many frames."""
    return max(0, (frames - MOTION_FRAMES) // (chunk_frames - MOTION_FRAMES))


def _rows_of(windows_BFWLC: Tensor) -> Tensor:
    """The features [B, F + 2, L, C] that overlapping windows were cut from."""
    parts = windows_BFWLC[:, 0, :WINDOW_REACH], windows_BFWLC[:, :, WINDOW_REACH]
    return torch.cat(parts, dim=1)


class PreparedHearing:
    """Stands where `Hearing` does for batches whose `mel` holds rows of `HeardChunks` [B, k]."""

    def __init__(self, heard: HeardChunks, chunk_frames: int) -> None:
        self.heard, self._new = heard, chunk_frames - MOTION_FRAMES

    def chunk(self, rows_Bk: Tensor, start: int, frames: int) -> Tensor:
        """Audio windows [B, F, W, L, C] of the chunk that begins at frame `start`.

        Raises ValueError off the grid.
        """
        if start % self._new or frames != self._new + MOTION_FRAMES:
            raise ValueError(
                f"start={start}, frames={frames}: prepared chunks of {self._new + MOTION_FRAMES} "
                f"frames begin at multiples of {self._new}"
            )
        return self.heard.windows(rows_Bk[:, start // self._new])


class ChunkBank:
    """Draws windows and sequences whose chunks lie on the grid."""

    def __init__(self, windows: MotionWindows, heard: HeardChunks, chunk_frames: int) -> None:
        self.source, self.heard, self.chunk_frames = windows, heard, chunk_frames
        self.hearing = PreparedHearing(heard, chunk_frames)
        self._counts = np.diff(heard.starts)

    @property
    def new_frames(self) -> int:
        """Frames that a chunk adds."""
        return self.chunk_frames - MOTION_FRAMES

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        first_chunk_share: float = 0.15,
        overlap_slots: int = 2,
        more_blinks: bool = False,
    ) -> WindowBatch:
        """Single chunks, as `MotionWindows.draw`."""
        if frames != self.chunk_frames:
            raise ValueError(f"frames={frames}: this bank holds chunks of {self.chunk_frames}")
        first = rng.random(batch) < first_chunk_share
        rows, codes, portraits = self._draw(rng, batch, 1, first.tolist(), more_blinks)
        return WindowBatch(
            latents=pack_codes(codes),
            audio=self.heard.windows(rows[:, 0]),
            layout=self.source.bank.layout[portraits],
            focus=self.source.focus[portraits],
            motion_slots=torch.from_numpy(np.where(first, 1, overlap_slots)),
            portraits=portraits,
        )

    def draw_sequences(
        self, rng: np.random.Generator, batch: int, frames: int, *, from_portrait: bool
    ) -> SequenceBatch:
        """Sequences for roll-outs; their `mel` are rows of the heard chunks, int64 [B, k]."""
        chunks, rest = divmod(frames - MOTION_FRAMES, self.new_frames)
        if rest or chunks < 1:
            raise ValueError(f"frames={frames}: must be 5 + {self.new_frames} k")
        rows, codes, portraits = self._draw(rng, batch, chunks, [from_portrait] * batch, False)
        return SequenceBatch(
            codes,
            rows,
            self.source.bank.layout[portraits],
            self.source.lips[portraits],
            portraits,
        )

    def _draw(
        self,
        rng: np.random.Generator,
        batch: int,
        chunks: int,
        first: Sequence[bool],
        more_blinks: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows [B, k], codes [B, 5 + k new, 6, h, w] and portraits [B]."""
        room = np.maximum(self._counts - chunks + 1, 0)
        if not room.sum():
            raise ValueError(
                f"no clip has {chunks} chunks (longest: {self._counts.max()}); add speech"
            )
        picks = rng.choice(len(room), size=batch, p=room / room.sum())
        portraits = rng.choice(self.source.portraits, size=batch)
        frames = MOTION_FRAMES + chunks * self.new_frames
        rows, codes = [], []
        for clip, portrait, is_first in zip(picks, portraits, first, strict=True):
            at = int(rng.integers(room[clip]))
            rows.append(self.heard.starts[clip] + at + np.arange(chunks))
            codes.append(
                self.source.window(
                    int(clip),
                    at * self.new_frames,
                    frames,
                    int(portrait),
                    from_portrait=is_first,
                    more_blinks=more_blinks,
                )[0]
            )
        return (
            torch.from_numpy(np.stack(rows)),
            torch.stack(codes),
            torch.from_numpy(portraits),
        )
