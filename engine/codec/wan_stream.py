"""What a video carries from latent to latent on its way through the VAE, apart from the weights.

Letters: T frames, H W picture size, C channels. Pictures are channels-last, [T, H, W, C].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn


class Border(Protocol):
    """What lies beyond the edges of a picture: zeros, or another process's part of it."""

    @property
    def whole(self) -> bool:
        """The picture has no neighbours: convolutions may pad it themselves."""
        ...

    def fill(self, frames_THWC: Tensor, before: int, after: int) -> None:
        """Set the margins, `before` rows and columns (top, left) and `after` (bottom, right)."""
        ...

    def gather(self, tokens_TLC: Tensor) -> Tensor:
        """The tokens of the whole picture, in any order: [T, all, C]."""
        ...


class WholePicture:
    """`Border` of one process that has all of the picture."""

    whole = True

    def fill(self, frames_THWC: Tensor, before: int, after: int) -> None:
        _, height, width, _ = frames_THWC.shape
        if before:
            frames_THWC[:, :before] = 0
            frames_THWC[:, :, :before] = 0
        if after:
            frames_THWC[:, height - after :] = 0
            frames_THWC[:, :, width - after :] = 0

    def gather(self, tokens_TLC: Tensor) -> Tensor:
        return tokens_TLC


class VideoStream:
    """Causal memory and work space of one pass of the encoder or the decoder over one video.

    Layers replace their memory and never write into it, so that `fork` costs nothing. Work space is
    written and read within one layer's call; a stream belongs to one thread at a time.

    `lent`: the memory lies where a recording keeps it, which will be written to (`wan_recording`).
    """

    def __init__(self, border: Border | None = None) -> None:
        self.border: Border = border or WholePicture()
        self.memory: dict[nn.Module, Tensor] = {}
        self.lent = False
        self._work: dict[tuple[object, ...], Tensor] = {}

    def fork(self) -> Self:
        """A second stream that goes on from here; both may be used, in turn or in two threads."""
        twin = type(self)(self.border)
        twin.memory = self.saved() if self.lent else dict(self.memory)
        return twin

    def saved(self) -> dict[nn.Module, Tensor]:
        """The memory, copied."""
        return {layer: frames.clone() for layer, frames in self.memory.items()}

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Let a layer remember what nobody will write to; its former memory is not read again."""
        self.memory[layer] = frames

    def keep_copy(self, layer: nn.Module, frames: Tensor) -> None:
        """As `keep`, of a part of something that may be written to."""
        self.keep(layer, frames.clone())

    def work(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised tensor of that shape, shared by all who ask for the same name and shape."""
        key = (name, shape, like.dtype, like.device)
        tensor = self._work.get(key)
        if tensor is None:
            tensor = self._work[key] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return tensor


Write = Callable[[Tensor, Tensor], object]
"""(source, target of the same shape): fills the target, which need not be contiguous."""


def copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)
