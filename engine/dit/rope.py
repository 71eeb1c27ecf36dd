"""Rotary positions: three axes for the latent grid, one axis for telling two people apart.

Letters: N tokens, H heads, K head size, T latent frames, R rows, W columns of tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MAX_POSITIONS = 1024  # per axis, as in Wan 2.1


def axis_sizes(head_dim: int) -> tuple[int, int, int]:
    """Split a head's `head_dim` channels over frame, row and column (Wan 2.1).

    Rows and columns get 2 * (head_dim // 6) channels each, frames the rest: 44/42/42 of 128.
    """
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def inverse_frequencies(channels: int) -> Tensor:
    """Angular step of each channel pair, float64 [channels / 2]: 10000^(-2i / channels)."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float64, device="cpu") / channels
    return torch.pow(torch.tensor(10000.0, dtype=torch.float64, device="cpu"), -exponents)


class RotaryGrid(nn.Module):
    """Cosines and sines of the 3D grid (RoFormer eq. 34, one rotation per axis).

    The tables are computed in float64 and kept in float32, whatever dtype the model is cast to:
    bf16 cannot tell neighbouring positions apart.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.pairs = tuple(size // 2 for size in axis_sizes(head_dim))
        cos, sin = self._tables()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _tables(self) -> tuple[Tensor, Tensor]:
        positions = torch.arange(MAX_POSITIONS, dtype=torch.float64, device="cpu")
        angles = torch.cat(
            [torch.outer(positions, inverse_frequencies(2 * pairs)) for pairs in self.pairs], dim=1
        )
        return angles.cos().float(), angles.sin().float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryGrid:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset(self.cos.device)
        return self

    def reset(self, device: torch.device | str) -> None:
        """Recompute the tables on `device` (a model built on meta has none)."""
        cos, sin = self._tables()
        self.cos, self.sin = cos.to(device), sin.to(device)

    def forward(self, frames: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Tables of one grid: (cos, sin), each float32 [frames * rows * columns, K / 2]."""
        return self._grid(self.cos, frames, rows, columns), self._grid(
            self.sin, frames, rows, columns
        )

    def _grid(self, table: Tensor, frames: int, rows: int, columns: int) -> Tensor:
        along_t, along_r, along_w = torch.split(table, list(self.pairs), dim=1)
        shape = (frames, rows, columns, -1)
        grid = torch.cat(
            [
                along_t[:frames, None, None].expand(shape),
                along_r[None, :rows, None].expand(shape),
                along_w[None, None, :columns].expand(shape),
            ],
            dim=-1,
        )
        return grid.flatten(0, 2)


def line_tables(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """(cos, sin) of real positions on one axis: [..., N] -> float32 [..., N, K / 2] each."""
    frequencies = inverse_frequencies(head_dim).to(device=positions.device, dtype=torch.float32)
    angles = positions.float().unsqueeze(-1) * frequencies
    return angles.cos(), angles.sin()
