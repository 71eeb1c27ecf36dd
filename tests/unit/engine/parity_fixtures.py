"""Reading the recordings of the original model; every size comes from their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from visavis.engine.audio.window import audio_windows
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.checkpoint import load_original
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """A file's tensors; floats of any width as float32 (the stored value is the value)."""
    loaded = load_file(folder / f"{name}.safetensors")
    return {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}


def read_json(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def load_dit(folder: Path) -> FlashTalkDiT:
    config = DiTConfig.from_original(read_json(folder, "dit_tiny.config"))
    return load_original(config, folder / "dit_tiny.weights.safetensors")


def vae_config(folder: Path) -> dict[str, Any]:
    """Arguments of `AutoencoderKLWan` for the recorded VAE."""
    original = read_json(folder, "vae_tiny.config")
    return {
        "base_dim": original["dim"],
        "z_dim": original["z_dim"],
        "dim_mult": original["dim_mult"],
        "num_res_blocks": original["num_res_blocks"],
        "attn_scales": original["attn_scales"],
        "temperal_downsample": original["temperal_downsample"],
        "latents_mean": original["mean"],
        "latents_std": original["std"],
    }


def load_vae(folder: Path) -> WanVAE:
    return WanVAE.load(folder / "vae_tiny.weights.safetensors", config=vae_config(folder))


def umt5_sizes(folder: Path) -> dict[str, Any]:
    """Arguments of `UMT5Config` for the recorded text encoder."""
    sizes = dict(read_json(folder, "t5_clip")["t5"]["hf"])
    return {name: value for name, value in sizes.items() if name != "transformers_version"}


def clip_sizes(folder: Path) -> dict[str, Any]:
    """Arguments of `CLIPVisionConfig` for the recorded image encoder."""
    sizes = read_json(folder, "t5_clip")["clip"]
    return {
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["dim"] * sizes["mlp_ratio"],
        "num_hidden_layers": sizes["num_layers"],
        "num_attention_heads": sizes["num_heads"],
        "image_size": sizes["image_size"],
        "patch_size": sizes["patch_size"],
        "hidden_act": sizes["activation"],
        "layer_norm_eps": 1e-5,
    }


def windows_of(shared: dict[str, Tensor], bounds: list[int], width: int) -> Tensor:
    """[1, F, W, L, C] of the recorded audio embedding."""
    return audio_windows(shared["audio_emb"], bounds[0], bounds[1], width)[None]


def assert_within(actual: Tensor, expected: Tensor, limit: float) -> None:
    """Maximum absolute difference, the recordings' measure; shapes must agree."""
    assert actual.shape == expected.shape
    worst = (actual.double() - expected.double()).abs().max().item()
    assert worst <= limit, f"differs by {worst:.2e}, limit {limit:.0e}"


def randomized(model: FlashTalkDiT, seed: int = 0) -> FlashTalkDiT:
    """Weights without the zeros of a fresh model, so that every path reaches the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model
