"""The parts of Wan 2.1's VAE: normalisation, residual block, attention, changes of size.

Names of parameters are those of diffusers' `AutoencoderKLWan`, which loads the same tensors. All
activations are pictures with their channels innermost, [T, H, W, C].

Letters: T frames, H W picture size, C channels, L pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.codec.wan_conv import CausalFilter
from visavis.engine.codec.wan_conv_tiles import framed_doubled, tile_kernels
from visavis.engine.codec.wan_filter import (
    Filter,
    Kernels,
    PointwiseFilter,
    channels_first,
    pictures,
)
from visavis.engine.codec.wan_packed import convolve, packed
from visavis.engine.codec.wan_stream import VideoStream
from visavis.engine.codec.wan_winograd import PAST, TAPS
from visavis.kernels.video import filter_tiles, padded, pixel_norm, tiles_serve


class PixelNorm(nn.Module):
    """Each pixel's channels scaled to a root mean square of 1, then by `gamma`.

    Statistics belong to a pixel, so that no part of a picture needs another's.
    """

    def __init__(self, channels: int, ones: int) -> None:
        """`gamma` is stored as [channels, 1, ...] with that many ones."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * ones))
        # in place of `pixel_norm`: set by engine.codec.wan_compilation
        self.compiled: Callable[..., None] | None = None

    def write(self, source: Tensor, target: Tensor, *, silu: bool) -> None:
        """Fill `target` [T, H, W, C] from `source`; `silu`: through x * sigmoid(x) as well."""
        gamma = self.gamma.detach().flatten() * source.shape[-1] ** 0.5
        (self.compiled or pixel_norm)(source, target, gamma, silu=silu)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and causal filter, around a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = PixelNorm(in_channels, 3)
        self.conv1 = CausalFilter(in_channels, out_channels)
        self.norm2 = PixelNorm(out_channels, 3)
        self.conv2 = CausalFilter(out_channels, out_channels)
        self.conv_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv_shortcut = PointwiseFilter(in_channels, out_channels, 1, 1, 1)

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        first = partial(self.norm1.write, silu=True)
        second = partial(self.norm2.write, silu=True)
        inner = self.conv1(x, stream, prepare=first)
        outer: Tensor = self.conv2(inner, stream, prepare=second, residual=self.conv_shortcut(x))
        return outer


class PictureAttention(nn.Module):
    """One head over the pixels of each frame; no frame sees another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels, 2)
        self.to_qkv = PointwiseFilter(channels, 3 * channels, 1, 1)
        self.proj = PointwiseFilter(channels, channels, 1, 1)

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        normed = torch.empty_like(x)
        self.norm.write(x, normed, silu=False)
        channels = x.shape[-1]
        query, key_value = self.to_qkv(normed).flatten(1, 2).split([channels, 2 * channels], -1)
        key, value = stream.border.gather(key_value).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        outcome: Tensor = x + self.proj(mixed[:, 0].reshape(x.shape))
        return outcome


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([PictureAttention(channels)])

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        before, after = self.resnets
        (attention,) = self.attentions
        outcome: Tensor = after(attention(before(x, stream), stream), stream)
        return outcome


class TimeFilter(Filter):
    """A causal filter over time alone, 3x1x1: sums of matrix products."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, TAPS, 1, 1)

    def at(self, frames_THWC: Tensor, target: Tensor, part: slice) -> None:
        """Filter three frames into `target` [H, W, the part's channels]."""
        (kernel,) = self.kernels((part.start, part.stop))
        weight, bias = kernel
        assert bias is not None
        flat = frames_THWC.flatten(1, 2)
        sum_ = torch.addmm(bias, flat[0], weight[0])
        sum_.addmm_(flat[1], weight[1])
        torch.addmm(sum_, flat[2], weight[2], out=target.flatten(0, 1))

    def _derive(self, kind: object) -> Kernels:
        assert isinstance(kind, tuple)
        part = slice(*kind)
        weight = self.weight.detach()[part, :, :, 0, 0].permute(2, 1, 0).contiguous()
        return [(weight, self.bias.detach()[part].contiguous())]


class DoublingFilter(Filter):
    """Pictures of twice the size, each pixel repeated and filtered by 3x3.

    Two of the three taps of a row fall on the same low-resolution pixel, so that each of the four
    phases of the outcome is a 2x2 convolution: 16 products where there were 36.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, 3)

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        """[T, H, W, C] -> [T, 2 H, 2 W, O]."""
        if stream.border.whole and tiles_serve(x):
            return self._by_tiles(x, stream)
        count, height, width, channels = x.shape
        whole = stream.border.whole
        if not whole:
            wide = stream.work("frames", (count, height + 2, width + 2, channels), x)
            wide[:, 1:-1, 1:-1] = x
            stream.border.fill(wide, 1, 1)
            x = wide
        size = (count, 2 * height, 2 * width, self.weight.shape[0])
        outcome = torch.empty(size, dtype=x.dtype, device=x.device)
        pad = 1 if whole else 0
        for (row, column), kernel in zip(_PHASES, self.kernels("phases"), strict=True):
            phase = pictures(convolve(channels_first(x), *kernel, (pad, pad)))
            kept = phase[:, row : row + height, column : column + width]
            outcome[:, row::2, column::2] = kept
        return outcome

    def _by_tiles(self, x: Tensor, stream: VideoStream) -> Tensor:
        """Tiles of 4x4 take 36 products as well where the phases take 64."""
        count, height, width, _ = x.shape
        channels = self.weight.shape[0]
        frames = framed_doubled(x, stream)
        outcome = x.new_empty((count, 2 * height, 2 * width, padded(channels)))
        ((kernels, bias),) = self.kernels("tiles")
        assert bias is not None
        for frame, made in zip(frames, torch.split(outcome, 1), strict=True):
            filter_tiles([frame], kernels, bias, made, None)
        return outcome[..., :channels].contiguous()

    def _derive(self, kind: object) -> Kernels:
        weight = self.weight.detach()
        if kind == "tiles":
            return tile_kernels(weight[:, :, None], self.bias.detach(), "first tiles")
        merge = torch.tensor(_PHASE_TAPS, dtype=torch.float64, device=weight.device)
        phases = torch.einsum("aph,bqw,oihw->aboipq", merge, merge, weight.double())
        bias = self.bias.detach()
        return [(packed(phases[a, b].to(weight.dtype)), bias) for a, b in _PHASES]


_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# which of the three taps each of a phase's two taps adds up
_PHASE_TAPS = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width; with `time`, each frame becomes two but the video's first."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), DoublingFilter(channels, channels // 2))
        self.time_conv = TimeFilter(channels, 2 * channels) if time else None

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        if self.time_conv is not None:
            x = self._double_frames(x, stream)
        outcome: Tensor = self.resample[1](x, stream)
        return outcome

    def _double_frames(self, x: Tensor, stream: VideoStream) -> Tensor:
        """The first frame stays single and is forgotten: after it the filter starts from zeros."""
        assert self.time_conv is not None
        if self not in stream.memory:
            stream.keep(self, torch.zeros_like(x[:1]).expand(PAST, -1, -1, -1))
            return x
        count, height, width, channels = x.shape
        frames = torch.cat([stream.memory[self], x])
        stream.keep_copy(self, frames[-PAST:])
        doubled = torch.empty((2 * count, height, width, channels), dtype=x.dtype, device=x.device)
        for t in range(count):
            window = frames[t : t + TAPS]
            self.time_conv.at(window, doubled[2 * t], slice(0, channels))
            self.time_conv.at(window, doubled[2 * t + 1], slice(channels, 2 * channels))
        return doubled


class HalvingFilter(Filter):
    """3x3 with stride 2; the margin of one row and column lies below and to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 3)

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        """[T, H, W, C] -> [T, H / 2, W / 2, C]."""
        count, height, width, channels = x.shape
        wide = stream.work("halving", (count, height + 1, width + 1, channels), x)
        wide[:, :-1, :-1] = x
        stream.border.fill(wide, 0, 1)
        (kernel,) = self.kernels("picture")
        return pictures(convolve(channels_first(wide), *kernel, (0, 0), stride=2))

    def _derive(self, kind: object) -> Kernels:
        return [(packed(self.weight.detach()), self.bias.detach())]


class Downsample(nn.Module):
    """Half the height and width; with `time`, two frames become one but for the video's first."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), HalvingFilter(channels))
        self.time_conv = TimeFilter(channels, channels) if time else None

    def forward(self, x: Tensor, stream: VideoStream) -> Tensor:
        x = self.resample[1](x, stream)
        if self.time_conv is None:
            return x
        last = stream.memory.get(self)
        frames = x if last is None else torch.cat([last, x])
        stream.keep_copy(self, x[-1:])
        if last is None:
            return x
        size = (len(frames) // 2, *x.shape[1:])
        halved = torch.empty(size, dtype=x.dtype, device=x.device)
        for t in range(len(halved)):
            window = frames[2 * t : 2 * t + TAPS]
            self.time_conv.at(window, halved[t], slice(0, x.shape[-1]))
        return halved
