"""What steers every block: the noise level, the text and the image, and modulated norms.

Letters: B batch, L context tokens, D model width, C channels of the condition.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import add_gated_norm, layer_norm, wide


class Float32Linear(nn.Linear):
    """A linear layer computed in float32, whatever the weights' dtype and autocast say."""

    def forward(self, x: Tensor) -> Tensor:
        meta = x.device.type == "meta"  # has no autocast to switch off
        with nullcontext() if meta else torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else wide(self.bias)
            weight = wide(self.weight)
            return F.linear(x.to(weight.dtype), weight, bias)


class Float32LayerNorm(nn.LayerNorm):
    """Affine layer norm computed in float32; the result has the weights' dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps, self.weight.dtype)

    def after(self, x: Tensor, h: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + h * gate, without a gate x + h, and this norm of it: one pass over memory."""
        dtype = self.weight.dtype
        return add_gated_norm(x, h, gate, self.weight, self.bias, self.eps, dtype)


class TimeConstants(NamedTuple):
    """What a noise level t means, float32: itself [B], to each block [B, layers, 6, D], to the head
    [B, 2, D].
    """

    level: Tensor
    blocks: Tensor
    head: Tensor


def timestep_features(timesteps_B: Tensor, size: int) -> Tensor:
    """Cosines then sines of 1000 t at `size / 2` frequencies, float32 [B, size]."""
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float64, device=timesteps_B.device) / half
    # 1000 t is rounded to float32 first: the released model was fed such numbers
    position = (timesteps_B.float() * 1000).double()
    angles = torch.outer(position, torch.pow(10000.0, -exponents))
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


class TimeEmbedding(nn.Module):
    """Noise level -> embedding [B, D] for the head and six vectors [B, 6, D] for the blocks."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.input = Float32Linear(config.freq_dim, config.dim)
        self.output = Float32Linear(config.dim, config.dim)
        self.projection = Float32Linear(config.dim, 6 * config.dim)

    def forward(self, timesteps_B: Tensor) -> tuple[Tensor, Tensor]:
        features = timestep_features(timesteps_B, self.freq_dim)
        embedding = self.output(F.silu(self.input(features)))
        return embedding, self.projection(F.silu(embedding)).unflatten(-1, (6, -1))


def padding_weights(count: int, dtype: torch.dtype) -> tuple[float, ...]:
    """Logits w, exact in `dtype`, whose exp(w) add up to `count`: the score bias of merged keys.

    log(count) alone is off by up to 1.6 % of the count in bfloat16, so that what rounding down
    leaves over goes to further keys; three are exact to 1e-4. float32 and wider need one.
    """
    if count == 0:
        return ()
    if torch.finfo(dtype).bits >= 32:
        return (math.log(count),)
    weights: list[float] = []
    left = float(count)
    for _ in range(3):
        weight = torch.tensor(math.log(left)).to(dtype)
        if math.exp(weight.item()) > left:
            weight = torch.nextafter(weight, torch.full_like(weight, -math.inf))
        weights.append(weight.item())
        left -= math.exp(weights[-1])
        if left <= 1e-6 * count:
            break
    return tuple(weights)


class TextEmbedding(nn.Module):
    """Text features, zero-padded to `text_len`, into the model's width.

    The padding is not masked: the released model attends to it, so it belongs to the input. Its
    rows are all alike, so a few (one in float32) stand for all, weighed by `bias`.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.text_len = config.text_len
        self.input = nn.Linear(config.text_dim, config.dim)
        self.output = nn.Linear(config.dim, config.dim)

    def forward(self, text_BLC: Tensor) -> Tensor:
        """[B, L <= text_len, text_dim] -> [B, L + rows that stand for the padding, D].

        Raises:
            ValueError: more than `text_len` tokens.
        """
        rows = len(self._padding(text_BLC))
        padded = F.pad(text_BLC.to(self.input.weight.dtype), (0, 0, 0, rows))
        out: Tensor = self.output(F.gelu(self.input(padded), approximate="tanh"))
        return out

    def bias(self, text_BLC: Tensor) -> Tensor | None:
        """What the scores of each row of `forward` get added, [B, rows]; None for nothing."""
        padding = self._padding(text_BLC)
        if not any(padding):
            return None
        weight = self.input.weight
        tail = torch.tensor(padding, dtype=weight.dtype, device=weight.device)
        return F.pad(tail, (text_BLC.shape[1], 0)).expand(text_BLC.shape[0], -1)

    def _padding(self, text_BLC: Tensor) -> tuple[float, ...]:
        missing = self.text_len - text_BLC.shape[1]
        if missing < 0:
            raise ValueError(
                f"text has {text_BLC.shape[1]} tokens, the model takes text_len={self.text_len}; "
                "shorten the prompt"
            )
        return padding_weights(missing, self.input.weight.dtype)


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
