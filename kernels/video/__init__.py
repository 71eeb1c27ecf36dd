"""The video VAE's causal filter and the norm of its pixels, for a CPU."""

from visavis.kernels.video.api import (
    TILE,
    filter_tiles,
    pack_tiles,
    padded,
    pixel_norm,
    tiled,
    tiles_serve,
)

__all__ = ["TILE", "filter_tiles", "pack_tiles", "padded", "pixel_norm", "tiled", "tiles_serve"]
