"""The VAE over several processes: the same numbers as one process gives, each doing its share.

Letters: B batch, C channels, T latent frames, h w latent size, F frames, H W frame size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from visavis.engine.codec.wan_stream import Border
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanDecoding, WanVAE
from visavis.engine.parallel.halo import PictureGrid, TileBorder
from visavis.engine.parallel.plan import ParallelError


class HaloVAE(WanVAE):
    """`WanVAE` in each process of a group: every process gives the whole, each does its tile.

    All of them call the same methods with the same tensors, in the same order. The whole comes
    back to all, or to process `root` of the group alone, the others then have what is in their
    tile.
    """

    def __init__(
        self,
        vae: WanVAE,
        grid: PictureGrid,
        group: dist.ProcessGroup | None = None,
        *,
        root: int | None = None,
    ) -> None:
        """`vae`: this process's, on its own device. Raises ParallelError as `TileBorder` does."""
        super().__init__(vae.network)
        self.tile = TileBorder(grid, group)
        self.root = root

    @property
    def runs_beside(self) -> bool:
        """As `WanVAE.runs_beside`, where its messages have a group of their own: within one group
        they would have to keep the order of the transformer's."""
        return self.tile.group is not None and super().runs_beside

    def encode(self, video_BCFHW: Tensor, border: Border | None = None) -> Tensor:
        """As `WanVAE.encode`, but of this process's tile, then put together."""
        self._check(video_BCFHW, SPATIAL_STRIDE)
        part = super().encode(_cut(video_BCFHW, self.tile, SPATIAL_STRIDE), border or self.tile)
        return _join(part, self.tile, 1, self.root)

    def begin(self, batch: int = 1, border: Border | None = None) -> HaloDecoding:
        """As `WanVAE.begin`; the decoding cuts the latents and joins the frames."""
        return HaloDecoding(super().begin(batch, border or self.tile), self)

    def decode(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        self._check(latents_BCTHW, 1)
        return super().decode(latents_BCTHW)

    def _check(self, picture: Tensor, scale: int) -> None:
        height, width = (scale * side for side in self.tile.grid.size)
        if tuple(picture.shape[-2:]) != (height, width):
            raise ParallelError(
                f"picture is {picture.shape[-2]}x{picture.shape[-1]}, the grid is made for "
                f"{height}x{width}; make one with PictureGrid.best(latent_size, world)"
            )


class HaloDecoding(WanDecoding):
    """A tile on its way through the decoder, joined to the others' after each latent."""

    def __init__(self, own: WanDecoding, vae: HaloVAE) -> None:
        super().__init__(vae, own._streams)
        self._halo = vae

    def fork(self) -> HaloDecoding:
        return HaloDecoding(super().fork(), self._halo)

    def _frames(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        vae = self._halo
        for part in super()._frames(_cut(latents_BCTHW, vae.tile, 1)):
            # What the network made has its precision: nothing more need travel.
            whole = _join(part.to(vae.dtype), vae.tile, SPATIAL_STRIDE, vae.root)
            yield whole.float()


def _cut(picture: Tensor, tile: TileBorder, scale: int) -> Tensor:
    rows, columns = tile.grid.box(tile.rank, scale)
    return picture[..., rows, columns]


@torch.inference_mode()
def _join(part: Tensor, tile: TileBorder, scale: int, root: int | None) -> Tensor:
    """[..., own H, own W] of each process -> [..., H, W], or what was given where not `root`."""
    height, width = (scale * side for side in tile.grid.size)
    leading = part.shape[:-2]
    parts = tile.gather_tiles(part.flatten(-2).movedim(-1, 0).contiguous(), root)
    if not parts:
        return part
    whole = part.new_empty((*leading, height, width))
    for rank, own in enumerate(parts):
        rows, columns = tile.grid.box(rank, scale)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        whole[..., rows, columns] = own.movedim(0, -1).reshape(*leading, *size)
    return whole
