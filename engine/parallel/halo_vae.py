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
    """`WanVAE` in each process of a group; every process gives the whole and gets the whole.

    All of them call the same methods with the same tensors, in the same order.
    """

    def __init__(
        self, vae: WanVAE, grid: PictureGrid, group: dist.ProcessGroup | None = None
    ) -> None:
        """`vae`: this process's, on its own device. Raises ParallelError as `TileBorder` does."""
        super().__init__(vae.network)
        self.tile = TileBorder(grid, group)

    @property
    def runs_beside(self) -> bool:
        """No: the order of its messages is that of the transformer's, in every process."""
        return False

    def encode(self, video_BCFHW: Tensor, border: Border | None = None) -> Tensor:
        """As `WanVAE.encode`, but of this process's tile, then put together."""
        self._check(video_BCFHW, SPATIAL_STRIDE)
        part = super().encode(_cut(video_BCFHW, self.tile, SPATIAL_STRIDE), border or self.tile)
        return _join(part, self.tile, 1)

    def begin(self, batch: int = 1, border: Border | None = None) -> HaloDecoding:
        """As `WanVAE.begin`; the decoding cuts the latents and joins the frames."""
        return HaloDecoding(super().begin(batch, border or self.tile), self.tile)

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

    def __init__(self, own: WanDecoding, tile: TileBorder) -> None:
        super().__init__(own._vae, own._streams)
        self._tile = tile

    def fork(self) -> HaloDecoding:
        return HaloDecoding(super().fork(), self._tile)

    def push(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """As `WanDecoding.push`: whole latents in, whole frames out."""
        for part in super().push(_cut(latents_BCTHW, self._tile, 1)):
            yield _join(part, self._tile, SPATIAL_STRIDE)


def _cut(picture: Tensor, tile: TileBorder, scale: int) -> Tensor:
    rows, columns = tile.grid.box(tile.rank, scale)
    return picture[..., rows, columns]


@torch.inference_mode()
def _join(part: Tensor, tile: TileBorder, scale: int) -> Tensor:
    """[..., own H, own W] of each rank -> [..., H, W]."""
    height, width = (scale * side for side in tile.grid.size)
    leading = part.shape[:-2]
    pixels = part.flatten(-2).movedim(-1, 0).contiguous()
    whole = part.new_empty((*leading, height, width))
    for rank, own in enumerate(tile.gather_tiles(pixels)):
        rows, columns = tile.grid.box(rank, scale)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        whole[..., rows, columns] = own.movedim(0, -1).reshape(*leading, *size)
    return whole
