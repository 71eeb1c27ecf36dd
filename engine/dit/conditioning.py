"""What steers every block: the noise level, the text and the image, and modulated norms.

Letters: B batch, L context tokens, D model width, C channels of the condition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.config import DiTConfig


class Float32Linear(nn.Linear):
    """A linear layer computed in float32, whatever the weights' dtype and autocast say."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return F.linear(x.float(), self.weight.float(), bias)


class Float32LayerNorm(nn.LayerNorm):
    """Affine layer norm computed in float32; the result has the weights' dtype."""

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return normed.to(self.weight.dtype)


def modulate(x_BND: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """norm(x) * (1 + scale) + shift in float32 (DiT's adaLN, arXiv 2212.09748)."""
    normed = F.layer_norm(x_BND.float(), x_BND.shape[-1:], eps=eps)
    return normed * (1 + scale) + shift


class TimeConstants(NamedTuple):
    """What a noise level means to the blocks: float32 [B, D] and [B, 6 * D], and itself, [B]."""

    embedding: Tensor
    projection: Tensor
    level: Tensor


def timestep_features(timesteps_B: Tensor, size: int) -> Tensor:
    """Cosines then sines of 1000 t at `size / 2` frequencies, float32 [B, size]."""
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float64, device=timesteps_B.device) / half
    # 1000 t is rounded to float32 first: the released model was fed such numbers
    position = (timesteps_B.float() * 1000).double()
    angles = torch.outer(position, torch.pow(10000.0, -exponents))
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


class TimeEmbedding(nn.Module):
    """Noise level -> embedding for the head and six modulation vectors for the blocks."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.input = Float32Linear(config.freq_dim, config.dim)
        self.output = Float32Linear(config.dim, config.dim)
        self.projection = Float32Linear(config.dim, 6 * config.dim)

    def forward(self, timesteps_B: Tensor) -> TimeConstants:
        features = timestep_features(timesteps_B, self.freq_dim)
        embedding = self.output(F.silu(self.input(features)))
        return TimeConstants(embedding, self.projection(F.silu(embedding)), timesteps_B.float())


class TextEmbedding(nn.Module):
    """Text features, zero-padded to `text_len`, into the model's width.

    The padding is not masked: the released model attends to it, so it belongs to the input.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.text_len = config.text_len
        self.input = nn.Linear(config.text_dim, config.dim)
        self.output = nn.Linear(config.dim, config.dim)

    def forward(self, text_BLC: Tensor) -> Tensor:
        """[B, L <= text_len, text_dim] -> [B, text_len, D].

        Raises:
            ValueError: more than `text_len` tokens.
        """
        missing = self.text_len - text_BLC.shape[1]
        if missing < 0:
            raise ValueError(
                f"text has {text_BLC.shape[1]} tokens, the model takes text_len={self.text_len}; "
                "shorten the prompt"
            )
        padded = F.pad(text_BLC.to(self.input.weight.dtype), (0, 0, 0, missing))
        out: Tensor = self.output(F.gelu(self.input(padded), approximate="tanh"))
        return out


class ImageEmbedding(nn.Module):
    """Image tokens into the model's width: norm, two layers, norm."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm_input = Float32LayerNorm(config.image_dim, eps=1e-5)
        self.input = nn.Linear(config.image_dim, config.image_dim)
        self.output = nn.Linear(config.image_dim, config.dim)
        self.norm_output = Float32LayerNorm(config.dim, eps=1e-5)

    def forward(self, image_BLC: Tensor) -> Tensor:
        """[B, image_tokens, image_dim] -> [B, image_tokens, D]."""
        out: Tensor = self.norm_output(self.output(F.gelu(self.input(self.norm_input(image_BLC)))))
        return out
