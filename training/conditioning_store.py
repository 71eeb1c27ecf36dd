"""Clips as a model of the released size needs them, encoded beforehand: the store on disk.

Its VAE, text, image and speech encoders would cost more than a training step, and the same clips
are seen often. `training.precompute` writes a store, `training.stored_clips` draws from it.

Legend: C channels, T latent frames, h w latent size, F frames of a chunk, K chunks, L layers,
N tokens, H W frame size.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.tensor_files import save_tensors

INDEX: Final = "index.json"
TEXTS: Final = "texts.safetensors"
VERSION: Final = 2


class StoreError(ValueError):
    """A store that cannot be used: names the folder, what is wrong and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWindow:
    """One window for stage 1, of F frames.

    latents [C, T, h, w]; cond [4 + C_ref, T, h, w], of a reference frame outside of the window;
    features [F + 2, L, channels], the two frames before the first included; face [h, w], 1 inside
    the face's box; image [N, dim] or None; text is the row of `texts`.
    """

    latents: Tensor
    cond: Tensor
    features: Tensor
    face: Tensor
    image: Tensor | None
    text: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSequence:
    """K chunks of one clip for stage 2, as a session would be given them.

    start [C, 1, h, w], the reference at rest; history [C, 2, h, w], the clip's own first five
    frames; features [K, F + 2, L, channels], each chunk heard as when it was the newest; picture
    uint8 [H, W, 3], the reference itself, and its landmarks [n, 2].
    """

    start: Tensor
    history: Tensor
    cond: Tensor
    features: Tensor
    picture: Tensor
    landmarks: Tensor
    image: Tensor | None
    text: int


Item = StoredWindow | StoredSequence
_KINDS: Final[dict[str, type[Item]]] = {"windows": StoredWindow, "sequences": StoredSequence}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """What all of a store's items have in common; windows may be of several lengths.

    `chunk_frames`: of a sequence's chunks. `stacked_frames`: pixel frames that lie in a latent
    frame's channels, 1 for a VAE's.
    """

    model: str
    chunk_frames: int
    stacked_frames: int = 1


class StoreWriter:
    """Writes items in shards; nothing can be read before `close`."""

    def __init__(
        self,
        folder: Path,
        spec: StoreSpec,
        texts: Sequence[Tensor],
        *,
        shard_items: int = 64,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        """`texts`: features [L, dim] of each prompt, the empty prompt first; none for a model that
        does not read. `dtype` of stored tensors."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._spec = folder, spec
        self._shard_items, self._dtype = shard_items, dtype
        self._waiting: dict[str, list[Item]] = {kind: [] for kind in _KINDS}
        self._shards: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}
        self._texts = len(texts)
        if texts:
            save_tensors(
                {str(i): text.cpu().contiguous().to(dtype) for i, text in enumerate(texts)},
                folder / TEXTS,
            )

    def add(self, item: Item) -> None:
        """Take one more item."""
        kind = next(name for name, of in _KINDS.items() if isinstance(item, of))
        self._waiting[kind].append(item)
        if len(self._waiting[kind]) == self._shard_items:
            self._flush(kind)

    def close(self) -> None:
        """Write what waits, and the index: only then is the store whole."""
        for kind in _KINDS:
            self._flush(kind)
        index = {
            "version": VERSION,
            **asdict(self._spec),
            "texts": self._texts,
            **self._shards,
        }
        partial = self._folder / (INDEX + ".partial")
        partial.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._folder / INDEX)

    def _flush(self, kind: str) -> None:
        items = self._waiting[kind]
        if not items:
            return
        tensors: dict[str, Tensor] = {}
        for number, item in enumerate(items):
            for name, value in _tensors(item):
                kept = value if value.dtype == torch.uint8 else value.to(self._dtype)
                tensors[f"{number}/{name}"] = kept.cpu().contiguous().clone()
        name = f"{kind}-{len(self._shards[kind]):05d}.safetensors"
        save_tensors(tensors, self._folder / name)
        shard = {"file": name, "texts": [item.text for item in items]}
        if kind == "windows":
            # The two frames before the first one are not of the window.
            shard["frames"] = [len(item.features) - WINDOW_REACH for item in items]
        self._shards[kind].append(shard)
        self._waiting[kind] = []


def _tensors(item: Item) -> Iterator[tuple[str, Tensor]]:
    for name in type(item).__slots__:
        value = getattr(item, name)
        if isinstance(value, Tensor):
            yield name, value


class ConditioningStore:
    """Items of a finished store by number; files are mapped, an item is read when it is asked for.

    Floating point tensors come back as float32.
    """

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Raises:
            StoreError: there is none, or one of another version.
        """
        path = folder / INDEX
        if not path.is_file():
            raise StoreError(
                f"store={folder}: has no {INDEX}; write it with visavis train conditions"
            )
        index = json.loads(path.read_text(encoding="utf-8"))
        if index.get("version") != VERSION:
            raise StoreError(
                f"{path}: version={index.get('version')}, this program reads {VERSION}; "
                "write the store again"
            )
        self.folder = folder
        self.spec = StoreSpec(
            model=index["model"],
            chunk_frames=index["chunk_frames"],
            stacked_frames=index["stacked_frames"],
        )
        self._places = {
            kind: [
                (shard["file"], number, text)
                for shard in index[kind]
                for number, text in enumerate(shard["texts"])
            ]
            for kind in _KINDS
        }
        lengths = [frames for shard in index["windows"] for frames in shard["frames"]]
        self._windows = {
            frames: [number for number, length in enumerate(lengths) if length == frames]
            for frames in sorted(set(lengths))
        }
        self._open: dict[str, Any] = {}
        self.texts = self._read_texts(index["texts"])

    def _read_texts(self, count: int) -> tuple[Tensor, ...]:
        if not count:
            return ()
        with safe_open(self.folder / TEXTS, framework="pt") as file:
            return tuple(file.get_tensor(str(i)).float() for i in range(count))

    def count(self, kind: str) -> int:
        """Items of "windows" or of "sequences"."""
        return len(self._places[kind])

    @property
    def window_lengths(self) -> list[int]:
        """Frames that windows have, in ascending order."""
        return list(self._windows)

    def windows_of(self, frames: int) -> list[int]:
        """Numbers of the windows of this length."""
        return self._windows.get(frames, [])

    def window(self, number: int) -> StoredWindow:
        """A window of stage 1."""
        return StoredWindow(**self._item("windows", number))

    def sequence(self, number: int) -> StoredSequence:
        """A sequence of stage 2."""
        return StoredSequence(**self._item("sequences", number))

    def _item(self, kind: str, number: int) -> Mapping[str, Any]:
        name, row, text = self._places[kind][number]
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
        file = self._open[name]
        prefix = f"{row}/"
        known = set(file.keys())
        values: dict[str, Any] = {"text": text, "image": None}
        for field in _KINDS[kind].__slots__:
            if prefix + field in known:
                tensor = file.get_tensor(prefix + field)
                values[field] = tensor if tensor.dtype == torch.uint8 else tensor.float()
        return values
