"""Batches for a model of the released size, from a store of encoded clips.

Stage 1 draws windows, stage 2 sequences that it rolls out through the VAE: decoded, corrected and
encoded again at every hand-over, as deployed (method sections 1.7, 1.9.1).

Legend: B samples, C channels, T latent frames, F frames of a chunk, W audio window, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.audio.window import audio_windows
from visavis.engine.codec.base import LatentCodec
from visavis.engine.face.framing import Portrait
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.conditioning_store import ConditioningStore, StoredSequence, StoreError
from visavis.training.rollout import Network


@dataclass(frozen=True, slots=True)
class ClipConditions:
    """What one chunk is generated from: audio [B, F, W, L, C], cond [B, 4 + C_ref, T, h, w],
    text [B, length, dim] or None, image [B, N, dim] or None.

    `empty` is the text of the empty prompt, [1, length, dim]; `None` for a model that reads none.
    """

    audio: Tensor
    cond: Tensor
    text: Tensor | None
    image: Tensor | None
    empty: Tensor | None

    def keep(self, heard_B: Tensor, read_B: Tensor) -> "ClipConditions":
        """With silence where `heard` is false, and the empty prompt where `read` is."""
        audio = self.audio * heard_B.to(self.audio.dtype).view(-1, 1, 1, 1, 1)
        if self.text is None or self.empty is None:
            return replace(self, audio=audio)
        return replace(
            self, audio=audio, text=torch.where(read_B.view(-1, 1, 1), self.text, self.empty)
        )

    def silent(self) -> "ClipConditions":
        """With neither audio nor text."""
        nothing = torch.zeros(len(self.audio), dtype=torch.bool, device=self.audio.device)
        return self.keep(nothing, nothing)

    def wordless(self) -> "ClipConditions | None":
        """Without text; None for a model that reads none."""
        if self.text is None or self.empty is None:
            return None
        return replace(self, text=self.empty.expand_as(self.text))

    def velocity(self, network: Network, latents_BCThw: Tensor, times_B: Tensor) -> Tensor:
        """The network's velocity under these conditions."""
        return network(
            latents_BCThw, times_B, self.cond, self.audio, text=self.text, image=self.image
        )


@dataclass(frozen=True, slots=True)
class ClipWindows:
    """Training windows: latents [B, C, T, h, w], focus [B, h, w] with mean 1, motion_slots [B]."""

    latents: Tensor
    focus: Tensor
    motion_slots: Tensor
    stacked_frames: int
    given: ClipConditions

    def conditions(self, heard_B: Tensor, read_B: Tensor) -> ClipConditions:
        """With the audio of some samples silent and the text of some empty, where false."""
        return self.given.keep(heard_B, read_B)


class ClipScene:
    """Sequences that a roll-out goes through; hand-overs pass through pixels."""

    def __init__(
        self,
        sequences: Sequence[StoredSequence],
        conditions: Sequence[ClipConditions],
        codec: LatentCodec[Any],
        *,
        from_portrait: bool,
        device: torch.device,
    ) -> None:
        """`conditions`: of each chunk."""
        self._conditions = conditions
        self._codec = codec
        starts = [item.start if from_portrait else item.history for item in sequences]
        self._start = torch.stack(starts).to(device)
        self._references = [
            codec.reference(Portrait(item.picture.numpy(), item.landmarks.numpy()))
            for item in sequences
        ]

    @property
    def chunks(self) -> int:
        """Chunks that there are conditions for."""
        return len(self._conditions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a chunk's latents, [B, C, T, h, w]."""
        batch, _, *grid = self._conditions[0].cond.shape
        return (batch, self._start.shape[1], *grid)

    def start(self) -> Tensor:
        """The reference at rest, or the clip's own first frames."""
        return self._start

    def conditions(self, chunk: int) -> ClipConditions:
        """Of chunk 0, 1, ..."""
        return self._conditions[chunk]

    def hand_over(
        self, latents_BCThw: Tensor, generator: torch.Generator, *, slots: int = 2
    ) -> Tensor:
        """The last five frames, decoded and encoded again as deployed."""
        handed = []
        for latents, reference in zip(latents_BCThw, self._references, strict=True):
            frames = [part.exact for part in self._codec.decode(latents, reference)]
            exact = torch.cat(frames)[-MOTION_FRAMES:]
            handed.append(self._codec.motion_latents(exact, reference).float())
        # A copy: what the VAE gives cannot take part in a gradient.
        return torch.stack(handed).clone()

    def recorded(self, chunk: int) -> tuple[None, None]:
        """Nothing was kept: distribution matching needs none of it."""
        return None, None


class StoredClips:
    """Draws windows and sequences; `codec` is needed for sequences alone."""

    def __init__(
        self,
        store: ConditioningStore,
        device: torch.device,
        *,
        codec: LatentCodec[Any] | None = None,
        focus_weight: float = 1.0,
    ) -> None:
        """`focus_weight`: of a cell inside the face's box, against 1 outside."""
        self.store, self.device, self.codec = store, device, codec
        self.focus_weight = focus_weight

    @property
    def train(self) -> "StoredClips":
        """Windows to train on."""
        return self

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        first_chunk_share: float = 0.5,
        overlap_slots: int = 2,
    ) -> ClipWindows:
        """Windows of one length; a first chunk goes on from one latent, others from two.

        Raises:
            StoreError: the store has no windows of that length.
        """
        known = self.store.windows_of(frames)
        if not known:
            there_is = ", ".join(map(str, self.store.window_lengths)) or "no"
            raise StoreError(
                f"frame_counts has {frames}, the store {self.store.folder} {there_is} frames of "
                "windows; set frame_counts to what there is, or write the store with "
                f"--frame-counts {frames}"
            )
        numbers = [known[i] for i in rng.integers(len(known), size=batch)]
        items = [self.store.window(number) for number in numbers]
        first = rng.random(batch) < first_chunk_share
        face = torch.stack([item.face for item in items])
        focus = 1 + (self.focus_weight - 1) * face
        return ClipWindows(
            latents=self._stack([item.latents for item in items]),
            focus=(focus / focus.mean(dim=(1, 2), keepdim=True)).to(self.device),
            motion_slots=torch.from_numpy(np.where(first, 1, overlap_slots)).to(self.device),
            stacked_frames=self.store.spec.stacked_frames,
            given=self._conditions(items, [item.features for item in items]),
        )

    def draw_scene(
        self, rng: np.random.Generator, batch: int, chunks: int, *, from_portrait: bool
    ) -> ClipScene:
        """Sequences of at least `chunks` chunks.

        Raises:
            StoreError: the store has none, or there is no codec.
        """
        numbers = self._pick(rng, "sequences", batch)
        items = [self.store.sequence(number) for number in numbers]
        return self.scene(items, chunks, from_portrait=from_portrait)

    def scene(
        self, items: Sequence[StoredSequence], chunks: int, *, from_portrait: bool
    ) -> ClipScene:
        """These sequences, as `draw_scene` gives drawn ones."""
        if self.codec is None:
            raise StoreError("roll-outs decode and encode: give StoredClips the model's codec")
        shortest = min(len(item.features) for item in items)
        if shortest < chunks:
            raise StoreError(
                f"store={self.store.folder}: has sequences of {shortest} chunks, max_chunks wants "
                f"{chunks}; write the store with --chunks {chunks}"
            )
        conditions = [
            self._conditions(items, [item.features[chunk] for item in items])
            for chunk in range(chunks)
        ]
        return ClipScene(
            items, conditions, self.codec, from_portrait=from_portrait, device=self.device
        )

    def _pick(self, rng: np.random.Generator, kind: str, batch: int) -> list[int]:
        count = self.store.count(kind)
        if not count:
            raise StoreError(
                f"store={self.store.folder}: has no {kind}; its clips were too short, add longer"
            )
        return [int(number) for number in rng.integers(count, size=batch)]

    def _conditions(self, items: Sequence[Any], features: Sequence[Tensor]) -> ClipConditions:
        windows = [audio_windows(rows, start=WINDOW_REACH) for rows in features]
        texts = self.store.texts
        text = empty = image = None
        if texts:
            # Padding is what the model itself would pad with: rows of zeros.
            longest = max(len(texts[0]), *(len(texts[item.text]) for item in items))
            padded = [_padded(texts[item.text], longest) for item in items]
            text, empty = self._stack(padded), self._stack([_padded(texts[0], longest)])
        if items[0].image is not None:
            image = self._stack([item.image for item in items])
        return ClipConditions(
            self._stack(windows), self._stack([item.cond for item in items]), text, image, empty
        )

    def _stack(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).to(self.device)


def _padded(text_LC: Tensor, length: int) -> Tensor:
    return F.pad(text_LC, (0, 0, 0, length - len(text_LC)))
