"""Wan 2.1's VAE put together: encoder and decoder, one latent at a time.

Letters: h w latent size, H W picture size (8 times that), Z latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from visavis.engine.codec.wan_conv import CausalFilter
from visavis.engine.codec.wan_filter import PointwiseFilter
from visavis.engine.codec.wan_layers import (
    Downsample,
    MiddleBlock,
    PixelNorm,
    ResidualBlock,
    Upsample,
)
from visavis.engine.codec.wan_stream import VideoStream

RGB = 3
TEMPORAL_STRIDE = 4


class WanConfigError(ValueError):
    """A size of the VAE that cannot work, with the field and the way out."""


# Statistics of the released model's latents, which its transformer was trained on.
_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanConfig:
    """Sizes, named as diffusers names them; the defaults are the released model's (127 M).

    Raises:
        WanConfigError: a field is out of range.
    """

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = _MEAN
    latents_std: tuple[float, ...] = _STD

    def __post_init__(self) -> None:
        for name in ("base_dim", "z_dim", "num_res_blocks"):
            value = getattr(self, name)
            if value < 1:
                raise WanConfigError(f"{name}={value}: must be at least 1")
        if len(self.dim_mult) != 4:
            raise WanConfigError(f"dim_mult={self.dim_mult}: must have 4 levels, for a stride of 8")
        if any(self.base_dim * factor % 2 for factor in self.dim_mult[1:]):
            raise WanConfigError(
                f"base_dim={self.base_dim} times dim_mult={self.dim_mult}: all but the first level "
                "are halved; use an even base_dim"
            )
        if self.temperal_downsample.count(True) != 2 or len(self.temperal_downsample) != 3:
            raise WanConfigError(
                f"temperal_downsample={self.temperal_downsample}: two of three levels must halve "
                f"time, for a stride of {TEMPORAL_STRIDE}"
            )
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise WanConfigError(
                    f"{name}: has {len(getattr(self, name))} values, but z_dim={self.z_dim}"
                )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """Read arguments of diffusers' `AutoencoderKLWan`, or of the original's `WanVAE_`.

        Raises:
            WanConfigError: an unknown argument, or a part that Wan 2.1 does not have.
        """
        absent: dict[str, Any] = {"attn_scales": [], "dropout": 0.0}
        known = {field.name for field in fields(cls)}
        for name, value in config.items():
            if name not in known | set(absent):
                raise WanConfigError(f"{name}: unknown; must be one of {', '.join(sorted(known))}")
            if name in absent and value != absent[name]:
                raise WanConfigError(f"{name}={value!r}: Wan 2.1 has {absent[name]!r} there")
        values: dict[str, Any] = {}
        for name in known & set(config):
            value = config[name]
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


class Encoder(nn.Module):
    """Pictures to latent statistics: 1 frame, then 4 at a time, into one latent each."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.base_dim * factor for factor in (1, *config.dim_mult)]
        self.conv_in = CausalFilter(RGB, widths[0])
        blocks: list[nn.Module] = []
        for level, width in enumerate(widths[1:]):
            for index in range(config.num_res_blocks):
                blocks.append(ResidualBlock(width if index else widths[level], width))
            if level < len(config.temperal_downsample):
                blocks.append(Downsample(width, time=config.temperal_downsample[level]))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = MiddleBlock(widths[-1])
        self.norm_out = PixelNorm(widths[-1], 3)
        self.conv_out = CausalFilter(widths[-1], 2 * config.z_dim)

    def forward(self, frames_THWC: Tensor, stream: VideoStream) -> Tensor:
        """[1 or 4, H, W, 3] in [-1, 1] -> [1, h, w, 2 Z]."""
        x = self.conv_in(frames_THWC, stream)
        for block in self.down_blocks:
            x = block(x, stream)
        x = self.mid_block(x, stream)
        norm = partial(self.norm_out.write, silu=True)
        latents: Tensor = self.conv_out(x, stream, prepare=norm)
        return latents


class UpBlock(nn.Module):
    """A level of the decoder."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(out_channels if index else in_channels, out_channels)
            for index in range(blocks)
        )
        self.upsamplers: nn.ModuleList | None = None

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        for layer in (*self.resnets, *(self.upsamplers or ())):
            x = layer(x, stream)
        return x


class Decoder(nn.Module):
    """Latents to pictures: the first gives 1 frame, each further one 4."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.base_dim * factor for factor in reversed(config.dim_mult)]
        self.conv_in = CausalFilter(config.z_dim, widths[0])
        self.mid_block = MiddleBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            block = UpBlock(before, width, config.num_res_blocks + 1)
            if level < len(config.temperal_downsample):
                time = config.temperal_downsample[-1 - level]
                block.upsamplers = nn.ModuleList([Upsample(width, time=time)])
            self.up_blocks.append(block)
            before = width // 2
        self.norm_out = PixelNorm(widths[-1], 3)
        self.conv_out = CausalFilter(widths[-1], RGB)

    def forward(self, latent_1hwZ: Tensor, stream: VideoStream) -> Tensor:
        """[1, h, w, Z] -> [1 or 4, H, W, 3]."""
        x = self.mid_block(self.conv_in(latent_1hwZ, stream), stream)
        for block in self.up_blocks:
            x = block(x, stream)
        norm = partial(self.norm_out.write, silu=True)
        frames: Tensor = self.conv_out(x, stream, prepare=norm)
        return frames


class WanNetwork(nn.Module):
    """All weights, under the names of diffusers' `AutoencoderKLWan`."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = PointwiseFilter(2 * config.z_dim, 2 * config.z_dim, 1, 1, 1)
        self.post_quant_conv = PointwiseFilter(config.z_dim, config.z_dim, 1, 1, 1)
        self.decoder = Decoder(config)
