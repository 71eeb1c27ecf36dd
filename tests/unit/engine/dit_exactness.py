"""Models and inputs in float64 that reach every branch, for tests of exactness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from parity_fixtures import randomized
from torch import Tensor

from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.model import FlashTalkDiT

# 64 tokens a latent frame on 16x16 latents and 2 * 4 audio keys: folding saves here
SMALL = replace(DIT_PRESETS["test"], text_len=12)


def small_model(
    config: DiTConfig = SMALL, dtype: torch.dtype = torch.float64, **options: Any
) -> FlashTalkDiT:
    torch.manual_seed(0)
    model = randomized(FlashTalkDiT(config, **options)).to(dtype).eval()
    return model.requires_grad_(False)


def small_inputs(
    config: DiTConfig = SMALL,
    dtype: torch.dtype = torch.float64,
    *,
    batch: int = 1,
    frames: int = 3,
    size: tuple[int, int] = (16, 16),
    text_tokens: int = 5,
    people: int = 1,
) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    inputs: dict[str, Any] = {
        "latents_BCTHW": noise(batch, config.latent_channels, frames, *size),
        "timesteps_B": torch.linspace(0.3, 0.9, batch),
        "cond_latents_BCTHW": noise(batch, config.cond_channels, frames, *size),
        "audio_BFWLC": noise(
            people * batch,
            config.num_frames(frames),
            config.audio_window,
            config.audio_layers,
            config.audio_channels,
        ),
    }
    if config.has_text:
        inputs["text"] = noise(batch, text_tokens, config.text_dim)
    if config.has_image:
        inputs["image"] = noise(batch, config.image_tokens, config.image_dim)
    if people == 2:
        masks = torch.zeros(3, 32, 32)
        masks[0, :16, :16], masks[1, :16, 16:], masks[2, 16:] = 1, 1, 1
        inputs["target_masks"] = masks
    return inputs
