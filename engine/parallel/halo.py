"""A picture cut into tiles, one a process: who has which part, and the exchange of borders.

Exact: before a convolution each process gets the row and column of pixels beyond each edge of its
tile from the process that has them, and the middle block's keys and values are gathered once.

Letters: T frames, H W size of a tile, L its pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from visavis.engine.parallel.plan import ParallelError

Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class PictureGrid:
    """Heights of the grid's rows and widths of its columns, in latent pixels.

    Rank = row * columns + column. Tiles need not be equal.

    Raises:
        ParallelError: no rows or columns, or an empty one.
    """

    heights: tuple[int, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("heights", "widths"):
            sizes = getattr(self, name)
            if not sizes or min(sizes) < 1:
                raise ParallelError(
                    f"{name}={sizes}: each process needs at least one latent row and column of the "
                    "picture; use fewer processes"
                )

    @classmethod
    def split(cls, latent_size: tuple[int, int], rows: int, columns: int) -> PictureGrid:
        """Tiles that differ by one latent pixel at most."""
        return cls(_shares(latent_size[0], rows), _shares(latent_size[1], columns))

    @classmethod
    def best(cls, latent_size: tuple[int, int], world: int) -> PictureGrid:
        """The grid of `world` tiles whose largest is smallest, then with the shortest borders.

        Raises:
            ParallelError: more processes than the picture can be cut into.
        """
        grids = [
            cls.split(latent_size, rows, world // rows)
            for rows in range(1, world + 1)
            if world % rows == 0 and rows <= latent_size[0] and world // rows <= latent_size[1]
        ]
        if not grids:
            raise ParallelError(
                f"world={world}: latents of {latent_size[0]}x{latent_size[1]} cannot be cut into "
                "so many tiles; use fewer processes"
            )
        return min(grids, key=lambda grid: (grid.largest, grid.border))

    @property
    def world(self) -> int:
        return len(self.heights) * len(self.widths)

    @property
    def size(self) -> tuple[int, int]:
        return sum(self.heights), sum(self.widths)

    @property
    def largest(self) -> int:
        """Latent pixels of the largest tile, which sets the pace."""
        return max(self.heights) * max(self.widths)

    @property
    def border(self) -> int:
        """Length of all inner borders, in latent pixels."""
        return (len(self.heights) - 1) * self.size[1] + (len(self.widths) - 1) * self.size[0]

    def place(self, rank: int) -> tuple[int, int]:
        """Row and column of the grid."""
        return divmod(rank, len(self.widths))

    def box(self, rank: int, scale: int = 1) -> Box:
        """Where a rank's tile lies in the picture; `scale` pixels a latent pixel."""
        row, column = self.place(rank)
        return _span(self.heights, row, scale), _span(self.widths, column, scale)


def _shares(size: int, parts: int) -> tuple[int, ...]:
    return tuple(size * (i + 1) // parts - size * i // parts for i in range(parts))


def _span(sizes: tuple[int, ...], index: int, scale: int) -> slice:
    ends = (0, *accumulate(sizes))
    return slice(ends[index] * scale, ends[index + 1] * scale)


class TileBorder:
    """`Border` of a tile: neighbours' pixels, zeros beyond the picture (`codec.wan_stream`).

    All processes of the group make the same calls in the same order. `sent_bytes` and
    `sent_messages` count what this process sent point to point.
    """

    whole = False

    def __init__(self, grid: PictureGrid, group: dist.ProcessGroup | None = None) -> None:
        """`group`: None for all processes.

        Raises:
            ParallelError: torch.distributed is not initialised, or the group has another size.
        """
        if not dist.is_initialized():
            raise ParallelError(
                "torch.distributed is not initialised; start the program under torchrun"
            )
        self.grid = grid
        self.group = group
        self.rank = dist.get_rank(group)
        self.sent_bytes = self.sent_messages = 0
        if dist.get_world_size(group) != grid.world:
            raise ParallelError(
                f"grid has {grid.world} tiles for {dist.get_world_size(group)} processes; "
                "make it with PictureGrid.best(latent_size, world)"
            )

    def fill(self, frames_THWC: Tensor, before: int, after: int) -> None:
        """Rows first, then columns with the rows' margins in them: so the corners arrive, too."""
        row, column = self.grid.place(self.rank)
        columns = len(self.grid.widths)
        inner = frames_THWC[:, :, before : frames_THWC.shape[2] - after]
        self._swap(
            inner,
            (before, after),
            self.rank - columns if row > 0 else None,
            self.rank + columns if row + 1 < len(self.grid.heights) else None,
        )
        self._swap(
            frames_THWC.transpose(1, 2),
            (before, after),
            self.rank - 1 if column > 0 else None,
            self.rank + 1 if column + 1 < columns else None,
        )

    def _swap(
        self, lines: Tensor, margins: tuple[int, int], previous: int | None, following: int | None
    ) -> None:
        """Exchange along dimension 1 with the ranks that have the lines before and after ours."""
        before, after = margins
        end = lines.shape[1] - after
        arrivals: list[tuple[Tensor, Tensor]] = []
        operations: list[dist.P2POp] = []
        for peer, margin, offered in (
            (previous, lines[:, :before], lines[:, before : before + after]),
            (following, lines[:, end:], lines[:, end - before : end]),
        ):
            if peer is None:
                margin.zero_()
                continue
            if offered.shape[1]:
                operations.append(self._operation(dist.isend, offered.contiguous(), peer))
                self.sent_bytes += offered.numel() * offered.element_size()
                self.sent_messages += 1
            if margin.shape[1]:
                arrived = torch.empty(margin.shape, dtype=lines.dtype, device=lines.device)
                operations.append(self._operation(dist.irecv, arrived, peer))
                arrivals.append((margin, arrived))
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()
        for margin, arrived in arrivals:
            margin.copy_(arrived)

    def _operation(self, kind: Callable[..., Any], tensor: Tensor, peer: int) -> dist.P2POp:
        return dist.P2POp(kind, tensor, self._global(peer), self.group)

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def gather(self, tokens_TLC: Tensor) -> Tensor:
        """Every tile's tokens, [T, all, C]; tiles of other sizes are padded on the way."""
        tiles = self.gather_tiles(tokens_TLC.transpose(0, 1))
        return torch.cat(tiles).transpose(0, 1)

    def gather_tiles(self, pixels: Tensor, root: int | None = None) -> list[Tensor]:
        """What each rank gives, [own number of pixels, ...], by rank; for `root` alone if not None.

        Along dimension 0 lie the latent pixels of the tile, or the same multiple of them. The
        others get an empty list.
        """
        counts = [height * width for height in self.grid.heights for width in self.grid.widths]
        each = pixels.shape[0] // counts[self.rank]
        padded = pixels.new_zeros((each * self.grid.largest, *pixels.shape[1:]))
        padded[: pixels.shape[0]] = pixels
        if root not in (None, self.rank):
            dist.gather(padded, dst=self._global(root), group=self.group)
            return []
        parts = [torch.empty_like(padded) for _ in counts]
        if root is None:
            dist.all_gather(parts, padded, group=self.group)
        else:
            dist.gather(padded, parts, dst=self._global(root), group=self.group)
        return [part[: each * count] for part, count in zip(parts, counts, strict=True)]
