"""Batches for the embedded transformer: speech clips x portraits -> exact motion latents.

Controls are linear in the motion code of a portrait (`PortraitBank.basis`), so a window of latents
needs no rendering: one small matrix product. Every draw comes from the generator passed in.

Legend: B samples, F pixel frames, T latent frames, K basis weights, C channels, h w control grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.motion_latents import TEMPORAL_STRIDE, pack_codes
from visavis.training.hearing import Hearing
from visavis.training.puppets.controls import CONTROLS, INDEX
from visavis.training.rollout import ChunkConditions
from visavis.training.speech.dataset import read_shards

ControlWeights = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# Head motion fades in over this many frames after a portrait's own pose (the first chunk).
FADE_FRAMES = 12
_BLINKS = [INDEX[name] for name in ("blink_l", "blink_r")]
_HEAD = [INDEX[name] for name in ("yaw", "pitch", "roll", "tx", "ty", "zoom")]


@dataclass(frozen=True, slots=True)
class SpeechClips:
    """Speech of many clips end to end: controls float32 [N, 15] and, as several recordings of the
    same speech, features float16 [R, N, layers, channels].

    Clip i is rows offsets[i] .. offsets[i + 1].
    """

    features: NDArray[np.float16]
    controls: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.features.shape[1] != len(self.controls) or self.offsets[-1] != len(self.controls):
            raise ValueError(
                f"features={self.features.shape[1]}, controls={len(self.controls)} and the last "
                f"offset {self.offsets[-1]} must agree; write the speech files again"
            )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of every clip."""
        return np.diff(self.offsets)

    def subset(self, clips: NDArray[np.int64]) -> "SpeechClips":
        """Those clips alone, copied."""
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in clips]
        index = np.concatenate(rows)
        offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        return SpeechClips(self.features[:, index], self.controls[index], offsets)

    @classmethod
    def concatenate(cls, parts: list["SpeechClips"]) -> "SpeechClips":
        """Several collections as one."""
        starts = np.cumsum([0] + [int(part.offsets[-1]) for part in parts])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            np.concatenate([part.features for part in parts], axis=1),
            np.concatenate([part.controls for part in parts]),
            np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        )

    @classmethod
    def load(cls, folder: Path) -> "SpeechClips":
        """All finished shards of `training.speech.dataset`; raises ValueError if there is none."""
        parts = [
            cls(shard.features, shard.controls, shard.offsets) for shard in read_shards(folder)
        ]
        if not parts:
            raise ValueError(f"speech={folder} has no shard; run visavis.training.speech.dataset")
        return cls.concatenate(parts)


@dataclass(frozen=True, slots=True)
class PortraitBank:
    """Motion of P portraits: basis [P, K, 6, h, w], rest [P, 6, h, w], layout [P, 16, h, w].

    A frame's code is rest + sum_k weights_k basis_k; all float32. `held` is true for portraits that
    training must not see.
    """

    basis: Tensor
    rest: Tensor
    layout: Tensor
    held: NDArray[np.bool_]

    def __post_init__(self) -> None:
        counts = {len(self.basis), len(self.rest), len(self.layout), len(self.held)}
        if len(counts) != 1:
            raise ValueError(f"basis, rest, layout and split differ in length: {sorted(counts)}")

    @classmethod
    def load(cls, path: Path) -> "PortraitBank":
        """Read `basis`, `rest`, `layout` and `split` ("train"/"held") from an npz file."""
        with np.load(path) as file:
            basis, rest, layout = (
                torch.from_numpy(file[key].astype(np.float32))
                for key in ("basis", "rest", "layout")
            )
            held = np.asarray(file["split"]).astype(str) != "train"
        return cls(basis, rest, layout, held)


@dataclass(frozen=True, slots=True)
class FocusSpec:
    """Which basis components say where the mouth and the eyes are, and how much they matter."""

    components: tuple[int, ...]
    weight: float = 6.0
    lips: tuple[int, ...] = ()


def moved_cells(bank: PortraitBank, components: tuple[int, ...]) -> Tensor:
    """How much each cell is moved [P, h, w], 0..1: the largest share over basis components.

    A component's share is the size of its upper- and lower-layer flow over that of its own largest
    cell.
    """
    size = bank.basis[:, list(components), 2:].square().sum(dim=2).sqrt()
    return (size / size.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)).amax(dim=1)


def focus_maps(bank: PortraitBank, spec: FocusSpec) -> Tensor:
    """Loss weights of the cells [P, h, w], mean 1: `weight` : 1 between a mouth or eye cell and
    the rest, soft in between."""
    weights = 1 + (spec.weight - 1) * moved_cells(bank, spec.components)
    return weights / weights.mean(dim=(1, 2), keepdim=True)


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Training windows of F frames.

    latents [B, 24, T, h, w]; audio [B, F, 5, layers, channels]; layout [B, 16, h, w];
    focus [B, h, w]; motion_slots [B] int64 (latent frames handed over clean); portraits [B] int64.
    """

    stacked_frames: ClassVar[int] = TEMPORAL_STRIDE

    latents: Tensor
    audio: Tensor
    layout: Tensor
    focus: Tensor
    motion_slots: Tensor
    portraits: Tensor

    def conditions(self, heard_B: Tensor, read_B: Tensor) -> ChunkConditions:
        """With silence, zeros, where `heard` is false; there is no text to be read."""
        return ChunkConditions(self.audio * heard_B.float().view(-1, 1, 1, 1, 1), self.layout)


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Whole sequences of N frames on one portrait each, for roll-outs.

    codes [B, N, 6, h, w]; mel [B, lead + N, 4, 64] (see `Hearing.rows`); layout [B, 16, h, w];
    lips [B, h, w] (0..1, where the jaw and the lips move); portraits [B] int64.
    """

    codes: Tensor
    mel: Tensor
    layout: Tensor
    lips: Tensor
    portraits: Tensor


class MotionWindows:
    """Draws windows from clips and portraits."""

    def __init__(
        self,
        clips: SpeechClips,
        bank: PortraitBank,
        control_weights: ControlWeights,
        focus: FocusSpec,
        hearing: Hearing,
        *,
        held: bool = False,
    ) -> None:
        self.clips = clips
        self.bank = bank
        self.hearing = hearing
        self.portraits = np.flatnonzero(bank.held == held)
        self._weights = control_weights
        self.focus = focus_maps(bank, focus)
        self.lips = moved_cells(bank, focus.lips or focus.components)
        if not len(self.portraits):
            raise ValueError(f"the portrait bank has no portrait with held={held}")

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
        """A batch of windows; clips are drawn by length, portraits evenly.

        A first chunk starts from the portrait itself: its frame 0 has the zero code, and the head
        leaves the portrait's pose gradually.
        """
        long_enough = np.flatnonzero(self.clips.lengths >= frames)
        if not len(long_enough):
            raise ValueError(
                f"no clip has {frames} frames (longest: {self.clips.lengths.max()}); add speech"
            )
        room = self.clips.lengths[long_enough] - frames + 1
        picks = rng.choice(long_enough, size=batch, p=room / room.sum())
        portraits = rng.choice(self.portraits, size=batch)
        first = rng.random(batch) < first_chunk_share
        codes, mel = [], []
        for clip, portrait, is_first in zip(picks, portraits, first, strict=True):
            start = int(rng.integers(self.clips.lengths[clip] - frames + 1))
            if is_first and rng.random() < 0.5:
                start = 0
            recording = int(rng.integers(len(self.clips.features)))
            window = self.window(
                int(clip),
                start,
                frames,
                int(portrait),
                recording,
                from_portrait=is_first,
                more_blinks=more_blinks,
            )
            codes.append(window[0])
            mel.append(window[1])
        index = torch.from_numpy(portraits)
        return WindowBatch(
            latents=pack_codes(torch.stack(codes)),
            audio=self.hearing.windows(torch.stack(mel)),
            layout=self.bank.layout[index],
            focus=self.focus[index],
            motion_slots=torch.from_numpy(np.where(first, 1, overlap_slots)),
            portraits=index,
        )

    def window(
        self,
        clip: int,
        start: int,
        frames: int,
        portrait: int,
        recording: int = 0,
        *,
        from_portrait: bool = False,
        more_blinks: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Codes [F, 6, h, w] and log-mel [lead + F, 4, 64] of one window.

        `more_blinks` doubles their number.
        """
        begin, end = self.clips.offsets[clip], self.clips.offsets[clip + 1]
        controls = self.clips.controls[begin + start : begin + start + frames].copy()
        if more_blinks:
            # From elsewhere in the clip: no word causes a blink, and a sampler makes too few of
            # what is rare.
            other = begin + (start + (end - begin) // 2) % (end - begin - frames + 1)
            blinks = self.clips.controls[other : other + frames][:, _BLINKS]
            controls[:, _BLINKS] = np.maximum(controls[:, _BLINKS], blinks)
        if from_portrait:
            fade = np.clip(np.arange(frames) / FADE_FRAMES, 0, 1).astype(np.float32)
            controls[:, _HEAD] *= (fade * fade * (3 - 2 * fade))[:, None]
        codes = self.codes(controls, portrait)
        if from_portrait:
            codes[0] = 0
        return codes, self.hearing.rows(self.clips.features[recording, begin:end], start, frames)

    def draw_sequences(
        self, rng: np.random.Generator, batch: int, frames: int, *, from_portrait: bool
    ) -> SequenceBatch:
        """Sequences for roll-outs; `from_portrait` as a session's first chunk, for all of them."""
        fits = np.flatnonzero(self.clips.lengths >= frames)
        if not len(fits):
            raise ValueError(
                f"no clip has {frames} frames (longest: {self.clips.lengths.max()}); add speech"
            )
        room = self.clips.lengths[fits] - frames + 1
        portraits = rng.choice(self.portraits, size=batch)
        codes, mel = [], []
        for clip, portrait in zip(
            rng.choice(fits, size=batch, p=room / room.sum()), portraits, strict=True
        ):
            start = int(rng.integers(self.clips.lengths[clip] - frames + 1))
            recording = int(rng.integers(len(self.clips.features)))
            truth, heard = self.window(
                int(clip), start, frames, int(portrait), recording, from_portrait=from_portrait
            )
            codes.append(truth)
            mel.append(heard)
        index = torch.from_numpy(portraits)
        return SequenceBatch(
            torch.stack(codes),
            torch.stack(mel),
            self.bank.layout[index],
            self.lips[index],
            index,
        )

    def codes(self, controls: NDArray[np.float32], portrait: int) -> Tensor:
        """Motion codes [F, 6, h, w] of controls [F, 15] on one portrait."""
        if controls.shape[1] != len(CONTROLS):
            raise ValueError(f"controls has {controls.shape[1]} columns; want {len(CONTROLS)}")
        weights = torch.from_numpy(self._weights(controls))
        basis = self.bank.basis[portrait]
        codes: Tensor = self.bank.rest[portrait] + torch.tensordot(weights, basis, dims=1)
        return codes
