"""Wan 2.1's video VAE (diffusers): normalised latents, decoding one latent at a time.

Holds weights and no state: the causal caches of a decode belong to its generator.

Letters: B batch, C latent channels, T latent frames, h w latent size, F frames, H W frame size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from visavis.engine.tensor_files import Move, TensorFiles, move_tensors

# diffusers assembles its models in ways that type checkers cannot follow
_Autoencoder: Any = AutoencoderKLWan

SPATIAL_STRIDE = 8
TEMPORAL_STRIDE = 4

_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def vae_key(original: str, res_blocks: int = 2) -> str:
    """The name in `AutoencoderKLWan` of a tensor of the original's `WanVAE_`."""
    name = re.sub(r"^conv1\.", "quant_conv.", original)
    name = re.sub(r"^conv2\.", "post_quant_conv.", name)
    name = name.replace("coder.conv1.", "coder.conv_in.")
    name = name.replace(".head.0.", ".norm_out.").replace(".head.2.", ".conv_out.")
    name = re.sub(r"\.middle\.(\d)", lambda m: f".mid_block.{_MIDDLE[m[1]]}", name)
    name = re.sub(r"\.residual\.(\d)", lambda m: f".{_RESIDUAL[m[1]]}", name)
    name = name.replace(".shortcut.", ".conv_shortcut.").replace(".downsamples.", ".down_blocks.")
    upsample = re.search(r"\.upsamples\.(\d+)", name)
    if upsample:
        # the decoder's levels hold res_blocks + 1 residual blocks and, but for the last, a resize
        level, index = divmod(int(upsample[1]), res_blocks + 2)
        part = f"resnets.{index}" if index <= res_blocks else "upsamplers.0"
        name = name.replace(upsample[0], f".up_blocks.{level}.{part}")
    return name


class WanVAE:
    """Encode and decode with the latents' mean and deviation taken out; float32 or bfloat16."""

    def __init__(self, vae: Any) -> None:
        """`vae` is an `AutoencoderKLWan`; it is frozen."""
        self.vae = vae
        self.vae.requires_grad_(False)
        parameter = next(vae.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        shape = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, device=self.device).view(shape)
        self.std = torch.tensor(vae.config.latents_std, device=self.device).view(shape)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        config: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> WanVAE:
        """Read the original's checkpoint (.pth or safetensors), strictly.

        `config`: arguments of `AutoencoderKLWan` that differ from the released model's.

        Raises:
            CheckpointError: a tensor is missing, surplus or of another shape.
        """
        with torch.device("meta"):
            vae = _Autoencoder(**dict(config or {}))
        with TensorFiles(path) as files:
            moves = [Move(key, vae_key(key, vae.config.num_res_blocks)) for key in files.names]
            move_tensors(vae, files, moves, dtype=dtype, device=device)
        return cls(vae)

    @property
    def latent_channels(self) -> int:
        channels: int = self.vae.config.z_dim
        return channels

    @torch.inference_mode()
    def encode(self, video_BCFHW: Tensor) -> Tensor:
        """RGB in [-1, 1], F = 1 + 4 n -> normalised latents float32 [B, C, T, h, w] (the mode)."""
        video = video_BCFHW.to(self.device, self.dtype)
        latents: Tensor = self.vae.encode(video).latent_dist.mode()
        return (latents.float() - self.mean) / self.std

    @torch.inference_mode()
    def decode(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """Frames of each latent as soon as it is decoded: [B, 3, 1 or 4, H, W] in [-1, 1].

        Equal to decoding at once: the caches that the VAE's causal convolutions carry from latent
        to latent live in this generator, so several may run side by side.
        """
        latents = latents_BCTHW.to(self.device).float() * self.std + self.mean
        features = self.vae.post_quant_conv(latents.to(self.dtype))
        caches: list[Any] = [None] * self.vae._cached_conv_counts["decoder"]
        for t in range(features.shape[2]):
            frames: Tensor = self.vae.decoder(
                features[:, :, t : t + 1], feat_cache=caches, feat_idx=[0], first_chunk=t == 0
            )
            yield frames.float().clamp(-1, 1)
