"""The VAE's causal 3x3x3 convolution, fast on each device.

In float32 on a CPU it is a sum of 2-D convolutions of whole frames, which oneDNN runs at the
machine's peak when channels lie innermost, with half of them saved by `wan_winograd`. Elsewhere it
is one 3-D convolution. Its input is written straight behind the two frames it remembers, inside
the margins it needs: no concatenation grows with the video and nothing is copied to be padded.

Letters: T frames, H W picture size, C input and O output channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.codec.wan_stream import VideoStream, Write, copy
from visavis.engine.codec.wan_winograd import (
    SLOTS,
    TAPS,
    bias_transform,
    kernel_transform,
    merge_products,
    split_frames,
)

PAST = TAPS - 1  # frames that a filter remembers
# Below this many input channels a transform costs more than the convolution that it halves.
_FEWEST_CHANNELS = 8

Kernels = list[tuple[Tensor, Tensor | None]]


class Filter(nn.Module):
    """Weight and bias of a convolution, and what is derived from them once.

    Initialised as torch does its convolutions (uniform, He et al. with a = sqrt(5)).
    """

    def __init__(self, in_channels: int, out_channels: int, *taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *taps))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self._derived: dict[object, Kernels] = {}
        self._source: tuple[Tensor, ...] = ()  # in a tuple, lest it count as a parameter
        reach = 1 / math.sqrt(in_channels * math.prod(taps))
        nn.init.uniform_(self.weight, -reach, reach)
        nn.init.uniform_(self.bias, -reach, reach)

    def kernels(self, kind: object) -> Kernels:
        """Kernels of a kind, computed when first asked for and when the weight was exchanged."""
        if not self._source or self._source[0] is not self.weight:
            self._derived, self._source = {}, (self.weight,)
        if kind not in self._derived:
            self._derived[kind] = self._derive(kind)
        return self._derived[kind]

    def _derive(self, kind: object) -> Kernels:
        raise LookupError(f"{type(self).__name__} has no kernels of kind {kind!r}")

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._source = ()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._source = ()
        super()._load_from_state_dict(*args, **kwargs)


class PointwiseFilter(Filter):
    """A 1x1 or 1x1x1 convolution: one matrix product."""

    def forward(self, x_THWC: Tensor) -> Tensor:
        return F.linear(x_THWC, self.weight.flatten(1), self.bias)


class CausalFilter(Filter):
    """A 3x3x3 convolution that looks at this frame and the two before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, TAPS, 3, 3)

    def forward(
        self,
        x_THWC: Tensor,
        stream: VideoStream,
        *,
        prepare: Write = copy,
        residual: Tensor | None = None,
    ) -> Tensor:
        """[T, H, W, C] -> [T, H, W, O]; a stream's first call must bring one frame.

        `prepare` writes what is filtered from `x_THWC` into its place; `residual` [T, H, W, O] is
        added to the outcome.
        """
        frames = self._place(x_THWC, stream, prepare)
        pad = 1 if stream.border.whole else 0
        if self not in stream.memory:
            outcome = self._first(frames, pad)
            past = torch.zeros_like(frames)
            stream.memory[self] = torch.cat([past, frames])
        else:
            if _sums_frames(frames):
                outcome = self._sum_of_frames(frames, stream, pad)
            else:
                (kernel,) = self.kernels("volume")
                volume = frames.permute(3, 0, 1, 2)[None]
                filtered = F.conv3d(volume, *kernel, padding=(0, pad, pad))
                outcome = filtered[0].permute(1, 2, 3, 0).contiguous()
            stream.memory[self] = frames[-PAST:].clone()
        return outcome if residual is None else outcome.add_(residual)

    def _place(self, x_THWC: Tensor, stream: VideoStream, prepare: Write) -> Tensor:
        """The input behind the remembered frames, with margins if the picture has neighbours."""
        count, height, width, channels = x_THWC.shape
        past = stream.memory.get(self)
        kept = 0 if past is None else PAST
        edge = 0 if stream.border.whole else 1
        shape = (kept + count, height + 2 * edge, width + 2 * edge, channels)
        frames = stream.work("frames", shape, x_THWC)
        if past is not None:
            frames[:kept] = past
        fresh = frames[kept:]
        prepare(x_THWC, fresh[:, edge : edge + height, edge : edge + width])
        stream.border.fill(fresh, edge, edge)
        return frames

    def _first(self, frames_THWC: Tensor, pad: int) -> Tensor:
        """The first frame of a video: what came before it is zero."""
        (kernel,) = self.kernels("last")
        return pictures(F.conv2d(channels_first(frames_THWC), *kernel, padding=pad))

    def _sum_of_frames(self, frames: Tensor, stream: VideoStream, pad: int) -> Tensor:
        count = frames.shape[0] - PAST
        height, width = (size - 2 + 2 * pad for size in frames.shape[1:3])
        channels = self.weight.shape[0]
        outcome = torch.empty(
            (count, height, width, channels), dtype=frames.dtype, device=frames.device
        )
        start = 0
        while start < count:
            outputs = next(n for n in (4, 2, 1) if n <= count - start)
            part = frames[start : start + outputs + PAST]
            if outputs == 1 or frames.shape[-1] < _FEWEST_CHANNELS:
                self._stacked(part, outcome[start : start + outputs], pad)
            else:
                self._transformed(part, outcome[start : start + outputs], stream, pad)
            start += outputs
        return outcome

    def _stacked(self, frames: Tensor, outcome: Tensor, pad: int) -> None:
        """The taps' frames side by side as channels."""
        (kernel,) = self.kernels("stacked")
        count = outcome.shape[0]
        stacked = torch.cat([frames[k : k + count] for k in range(TAPS)], dim=-1)
        outcome.copy_(pictures(F.conv2d(channels_first(stacked), *kernel, padding=pad)))

    def _transformed(self, frames: Tensor, outcome: Tensor, stream: VideoStream, pad: int) -> None:
        outputs = outcome.shape[0]
        picture = tuple(frames.shape[1:])
        slots = stream.work("slots", (SLOTS[outputs], *picture), frames)
        temporary = stream.work("temporary", (2, *picture), frames)
        split_frames(frames.unbind(), slots.unbind(), temporary.unbind())
        products = [
            pictures(F.conv2d(channels_first(slot[None]), *kernel, padding=pad))[0]
            for slot, kernel in zip(slots, self.kernels(outputs), strict=True)
        ]
        merge_products(products, outcome.unbind())

    def _derive(self, kind: object) -> Kernels:
        weight, bias = self.weight.detach(), self.bias.detach()
        if kind == "last":
            return [(innermost(weight[:, :, -1]), bias)]
        if kind == "stacked":
            return [(innermost(weight.transpose(1, 2).flatten(1, 2)), bias)]
        if kind == "volume":
            return [(weight.contiguous(memory_format=torch.channels_last_3d), bias)]
        if not isinstance(kind, int):
            return super()._derive(kind)
        transform = kernel_transform(kind).to(weight.device)
        slots = torch.einsum("sk,oikhw->soihw", transform, weight.double()).to(weight.dtype)
        shares = bias_transform(kind).tolist()
        return [
            (innermost(slot), bias * share if share else None)
            for slot, share in zip(slots, shares, strict=True)
        ]


def _sums_frames(frames: Tensor) -> bool:
    return frames.device.type == "cpu" and frames.dtype in (torch.float32, torch.float64)


def channels_first(x_THWC: Tensor) -> Tensor:
    """The same memory as torch's convolutions name it, [T, C, H, W] in channels_last."""
    return x_THWC.permute(0, 3, 1, 2)


def pictures(x_TCHW: Tensor) -> Tensor:
    """[T, C, H, W] in channels_last -> [T, H, W, C], contiguous."""
    return x_TCHW.permute(0, 2, 3, 1).contiguous()


def innermost(weight_OIHW: Tensor) -> Tensor:
    return weight_OIHW.contiguous(memory_format=torch.channels_last)
