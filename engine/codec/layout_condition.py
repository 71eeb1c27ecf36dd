"""What the embedded transformer is told of a portrait: its layout latents, twice.

Legend: N portraits, C channels, T latent frames, h w control grid.
"""

from typing import Final

import torch
from torch import Tensor

from visavis.engine.dit.config import MASK_CHANNELS

IMAGE_TOKEN_CELLS: Final = 4


def layout_condition(layout_NChw: Tensor, length: int) -> Tensor:
    """Mask and layout latents [N, 4 + C, T, h, w] of `length` latent frames.

    The layout stands in every latent frame, not in the first alone as the 14B's reference does:
    a small model need not carry it there by attention. The mask marks the first as there.
    """
    layout = layout_NChw[:, :, None].expand(-1, -1, length, -1, -1)
    mask = torch.zeros_like(layout[:, :MASK_CHANNELS])
    mask[:, :, 0] = 1
    return torch.cat([mask, layout], dim=1)


def layout_tokens(layout_NChw: Tensor) -> Tensor:
    """Image tokens [N, h w / 16, 16 C]: the layout's patches of 4x4 cells, row by row."""
    count, channels, h, w = layout_NChw.shape
    cells = IMAGE_TOKEN_CELLS
    patches = layout_NChw.reshape(count, channels, h // cells, cells, w // cells, cells)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * cells * cells)
