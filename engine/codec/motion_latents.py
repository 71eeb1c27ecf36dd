"""Motion codes of single frames and the latents that hold them.

A frame's code has six channels on a 16x16 control grid: head flow H, upper-layer flow A and
D = lower-layer flow minus A, each (dx, dy), in pixels of the 256-pixel frame over `CODE_SCALE`.
Latents keep the video layout [24, T, 16, 16] and the causal rule F = 1 + 4 (T - 1) of the Wan VAE:
latent 0 codes one frame (repeated four times), each later latent four frames, frame-major.
"""

from typing import Final

import torch
from torch import Tensor

CODE_CHANNELS: Final = 6
GRID: Final = 16
FRAME_SIZE: Final = 256
TEMPORAL_STRIDE: Final = 4
LATENT_CHANNELS: Final = CODE_CHANNELS * TEMPORAL_STRIDE
# Pixels per code unit: about the spread of each channel over the face, so that unit noise fits all.
CODE_SCALE: Final = (4.0, 4.0, 2.5, 4.0, 2.5, 5.0)


def pack_codes(codes_BF6hw: Tensor) -> Tensor:
    """Latents [B, 24, T, h, w] of codes [B, F, 6, h, w] with F = 4 (T - 1) + 1.

    Raises ValueError if F is not of that form.
    """
    batch, frames, channels, h, w = codes_BF6hw.shape
    if frames % TEMPORAL_STRIDE != 1:
        raise ValueError(f"frames={frames} must be 4 n + 1; pad or cut the clip")
    first = codes_BF6hw[:, :1].expand(-1, TEMPORAL_STRIDE, -1, -1, -1)
    groups = torch.cat([first, codes_BF6hw[:, 1:]], dim=1)
    latents = groups.reshape(batch, -1, TEMPORAL_STRIDE * channels, h, w)
    return latents.transpose(1, 2)


def unpack_codes(latents_BCThw: Tensor) -> Tensor:
    """Codes [B, 4 (T - 1) + 1, 6, h, w] of latents; the first latent's four copies are averaged."""
    batch, channels, length, h, w = latents_BCThw.shape
    shape = TEMPORAL_STRIDE, channels // TEMPORAL_STRIDE, h, w
    groups = latents_BCThw.transpose(1, 2).reshape(batch, length, *shape)
    first = groups[:, :1].mean(dim=2)
    rest = groups[:, 1:].flatten(1, 2)
    return torch.cat([first, rest], dim=1)
