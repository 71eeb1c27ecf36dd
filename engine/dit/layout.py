"""Which of a chunk's tokens this process holds, and to which latent frame each belongs.

Tokens are ordered frame by frame, row by row. A process of a group holds one contiguous run of
them, padded at the end to the length that all processes share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Segment(NamedTuple):
    """Rows `start:stop` of a process belong to latent frame `frame`."""

    frame: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Rows `0:length` of a process are the chunk's tokens `start:start + length`.

    `frames` latent frames of `frame_tokens` tokens make the chunk. Rows at or past `valid` are
    padding: computed like any other, never read by another row, dropped at the end.
    """

    frames: int
    frame_tokens: int
    start: int
    length: int

    @classmethod
    def whole(cls, frames: int, frame_tokens: int) -> TokenLayout:
        """All tokens in one process."""
        return cls(frames=frames, frame_tokens=frame_tokens, start=0, length=frames * frame_tokens)

    @classmethod
    def shard(cls, frames: int, frame_tokens: int, *, rank: int, world: int) -> TokenLayout:
        """The part of process `rank` of `world`: ceil(tokens / world) rows."""
        length = -(-frames * frame_tokens // world)
        return cls(frames=frames, frame_tokens=frame_tokens, start=rank * length, length=length)

    @property
    def tokens(self) -> int:
        """Tokens of the chunk."""
        return self.frames * self.frame_tokens

    @property
    def valid(self) -> int:
        """Rows that hold a token; the others are padding."""
        return max(0, min(self.tokens - self.start, self.length))

    @property
    def frame_range(self) -> tuple[int, int]:
        """Latent frames (first, last + 1) that the rows touch; never empty."""
        first = min(self.start // self.frame_tokens, self.frames - 1)
        end = -(-(self.start + self.length) // self.frame_tokens)
        return first, max(first + 1, min(end, self.frames))

    def segments(self) -> tuple[Segment, ...]:
        """The rows, frame by frame; padding counts to the last frame, whose audio it may hear."""
        first, end = self.frame_range
        bounds = [
            min(max(frame * self.frame_tokens - self.start, 0), self.length)
            for frame in range(first, end)
        ]
        stops = [*bounds[1:], self.length]
        return tuple(
            Segment(frame, start, stop)
            for frame, start, stop in zip(range(first, end), bounds, stops, strict=True)
            if stop > start
        )

    def cut(self, x_BNC: Tensor, origin: int) -> Tensor:
        """This layout's rows of a tensor whose rows begin at token `origin`; padding is zeros."""
        begin = min(self.start, self.tokens) - origin
        rows = x_BNC[:, begin : begin + self.valid]
        return F.pad(rows, (0, 0, 0, self.length - self.valid))
