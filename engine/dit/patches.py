"""Latents to tokens and back, and the checks of their shapes.

Letters: B batch, C channels, T latent frames, R rows and W columns of tokens, p q patch size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from visavis.engine.dit.audio_adapter import AudioWindowError
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.rope import MAX_POSITIONS


def token_grid(
    config: DiTConfig, latents_BCTHW: Tensor, cond_BCTHW: Tensor, heard_frames: int
) -> tuple[int, int, int]:
    """(frames, rows, columns) of the tokens.

    Raises:
        ValueError: channels, sizes or lengths that do not fit each other or the model.
    """
    channels, frames, height, width = latents_BCTHW.shape[1:]
    if channels != config.latent_channels or cond_BCTHW.shape[1] != config.cond_channels:
        raise ValueError(
            f"latents have {channels} channels and cond_latents {cond_BCTHW.shape[1]}; the model "
            f"needs latent_channels={config.latent_channels}, cond_channels={config.cond_channels}"
        )
    if cond_BCTHW.shape[2:] != latents_BCTHW.shape[2:]:
        raise ValueError(
            f"cond_latents cover {tuple(cond_BCTHW.shape[2:])} but latents "
            f"{tuple(latents_BCTHW.shape[2:])} (frames, rows, columns); encode them for this chunk"
        )
    if heard_frames != frames:
        raise AudioWindowError(
            f"audio covers {heard_frames} latent frames but the latents have {frames}; give "
            f"{config.num_frames(frames)} windows"
        )
    down, across = config.patch_size[1:]
    if height % down or width % across:
        raise ValueError(
            f"latent size {height}x{width} is no multiple of the patch {down}x{across}"
        )
    grid = (frames, height // down, width // across)
    if max(grid) > MAX_POSITIONS:
        raise ValueError(f"token grid {grid} exceeds {MAX_POSITIONS} positions on an axis")
    return grid


def patches(config: DiTConfig, x_BCTHW: Tensor) -> Tensor:
    """[B, tokens, C * p * q], channels in the order of the patch embedding's weights."""
    batch, channels, frames, height, width = x_BCTHW.shape
    down, across = config.patch_size[1:]
    grid = x_BCTHW.view(batch, channels, frames, height // down, down, width // across, across)
    return grid.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def unpatch(config: DiTConfig, x_BNP: Tensor, frames: int, rows: int, columns: int) -> Tensor:
    """The head's patches [B, tokens, p * q * C] -> [B, C, T, R * p, W * q]."""
    down, across = config.patch_size[1:]
    grid = x_BNP.reshape(x_BNP.shape[0], frames, rows, columns, down, across, -1)
    # B T R W p q C -> B C T (R p) (W q)
    return grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def token_masks(target_masks: Tensor, rows: int, columns: int) -> Tensor:
    """Regions in pixels -> float32 [3, rows * columns], by the nearest pixel.

    Raises:
        ValueError: not three masks.
    """
    if target_masks.ndim != 3 or target_masks.shape[0] != 3:
        raise ValueError(
            f"target_masks has shape {tuple(target_masks.shape)}; needs [3, height, width]: "
            "person 1, person 2, background"
        )
    nearest = F.interpolate(target_masks[None].float(), size=(rows, columns), mode="nearest")
    return (nearest[0] > 0).float().flatten(1)
