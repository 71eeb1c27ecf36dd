"""The causal 3x3x3 convolution in a sixth of its products: compiled, for a CPU in float32.

A filter of three taps over time, rows and columns, of each of which `wan_winograd` saves a part.
All of it is one call of `visavis.kernels.video`, for four frames, or two, or one, at a time.

Letters: T frames, H W picture size, C input and O output channels, S = 24 slots of a tile.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from visavis.engine.codec.wan_filter import Kernels
from visavis.engine.codec.wan_stream import VideoStream, Write
from visavis.engine.codec.wan_winograd import PAST, kernel_transform
from visavis.kernels.video import TILE, pack_tiles, padded, tiled

TileKind = Literal["first tiles", "single tiles", "two frames' tiles", "four frames' tiles"]
TILE_KINDS: tuple[TileKind, ...] = get_args(TileKind)
KINDS_OF: dict[int, TileKind] = {
    1: "single tiles",
    2: "two frames' tiles",
    4: "four frames' tiles",
}


def framed(x_THWC: Tensor, stream: VideoStream, prepare: Write) -> tuple[list[Tensor], Tensor]:
    """What is filtered, inside its margins, in whole tiles and channels: all frames, the last two.

    The latter may be kept; the others lie in work space.
    """
    count, height, width, channels = x_THWC.shape
    size = _framed_size(height, width, channels)
    late = min(count, PAST)
    if not stream.border.whole:  # a message for all frames
        frames = stream.work("framed", (count, *size), x_THWC)
        _frame(x_THWC, frames, stream, prepare)
        return list(frames.unbind()), frames[count - late :].clone()
    early = stream.work("framed", (count - late, *size), x_THWC)
    kept = x_THWC.new_empty((late, *size))
    for source, part in zip(torch.split(x_THWC, [count - late, late]), (early, kept), strict=True):
        if len(part):
            _frame(source, part, stream, prepare)
    return [*early.unbind(), *kept.unbind()], kept


def framed_doubled(x_THWC: Tensor, stream: VideoStream) -> Tensor:
    """Each pixel twice in both directions, [T, 2 H and margins, 2 W and margins, C]."""
    count, height, width, channels = x_THWC.shape
    size = _framed_size(2 * height, 2 * width, channels)
    frames = stream.work("framed", (count, *size), x_THWC)
    inside = frames[:, 1 : 1 + 2 * height, 1 : 1 + 2 * width, :channels]
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside[:, row::2, column::2] = x_THWC
    _clear(frames, 2 * height, 2 * width, channels)
    stream.border.fill(frames[:, : 2 + 2 * height, : 2 + 2 * width], 1, 1)
    return frames


def _framed_size(height: int, width: int, channels: int) -> tuple[int, int, int]:
    rows, columns = tiled(height, width)
    return rows + 2, columns + 2, padded(channels)


def _frame(x_THWC: Tensor, frames: Tensor, stream: VideoStream, prepare: Write) -> None:
    _, height, width, channels = x_THWC.shape
    prepare(x_THWC, frames[:, 1 : 1 + height, 1 : 1 + width, :channels])
    _clear(frames, height, width, channels)
    stream.border.fill(frames[:, : 2 + height, : 2 + width], 1, 1)


def _clear(frames: Tensor, height: int, width: int, channels: int) -> None:
    """What fills up the last tiles and the channels."""
    frames[:, 2 + height :] = 0
    frames[:, :, 2 + width :] = 0
    frames[..., channels:] = 0


def tile_kernels(weight_OIThw: Tensor, bias_O: Tensor, kind: TileKind) -> Kernels:
    """One set of kernels, and the bias filled up to as many channels."""
    weight = weight_OIThw.double()
    if kind == "first tiles":  # what came before a video's first frame is zero
        over_time = weight[None, :, :, -1]
    elif kind == "single tiles":
        over_time = weight.permute(2, 0, 1, 3, 4)
    else:
        outputs = next(n for n, name in KINDS_OF.items() if name == kind)
        over_time = torch.einsum("sk,oikhw->soihw", kernel_transform(outputs), weight)
    rows, columns = map(kernel_transform, TILE)
    slots = torch.einsum("rh,qw,soihw->srqoi", rows, columns, over_time).flatten(1, 2)
    bias = bias_O.new_zeros(padded(len(bias_O)))
    bias[: len(bias_O)] = bias_O
    return [(pack_tiles(slots.float()), bias)]
