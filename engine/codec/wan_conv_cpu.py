"""The causal 3x3x3 convolution in a quarter of its multiplications, for a CPU without a compiler.

Over time and over rows it is a filter of three taps, of each of which `wan_winograd` saves half;
over columns oneDNN sums, at the machine's peak when channels lie innermost. A frame is turned into
its six slots of rows once and remembered in that form.

Letters: T frames, H W picture size, R = H / 4 rounded up, C input and O output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from visavis.engine.codec.wan_filter import Kernels, channels_first
from visavis.engine.codec.wan_packed import convolve, packed
from visavis.engine.codec.wan_stream import VideoStream, Write
from visavis.engine.codec.wan_winograd import (
    PAST,
    SLOTS,
    bias_transform,
    kernel_transform,
    merge_products,
    split_lines,
)

_ROWS = 4  # outputs of one filter over rows
# Below this many input channels a transform over time costs more than the products that it saves.
_FEWEST_CHANNELS = 8

RowKind = Literal["last rows", "stacked rows", "two frames' rows", "four frames' rows"]
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)
_FRAMES: dict[int, RowKind] = {2: "two frames' rows", 4: "four frames' rows"}


def row_slots(x_THWC: Tensor, stream: VideoStream, prepare: Write) -> tuple[Tensor, Tensor]:
    """The filter's input as slots of rows, [T, 6, R, W, C]: the frames before the last two, those.

    The former lie in shared work space, the latter may be kept. W includes the margins if the
    picture has neighbours.
    """
    count, height, width, channels = x_THWC.shape
    tiles = _tiles(height)
    edge = 0 if stream.border.whole else 1
    shape = (count, _ROWS * tiles + 2, width + 2 * edge, channels)
    frames = stream.work("frames", shape, x_THWC)
    prepare(x_THWC, frames[:, 1 : 1 + height, edge : edge + width])
    frames[:, height + 1 :] = 0
    if edge:
        stream.border.fill(frames[:, : height + 2], 1, 1)
    else:
        frames[:, 0] = 0
    late = min(count, PAST)
    slot = (SLOTS[_ROWS], tiles, *shape[2:])
    parts = (
        stream.work("early", (count - late, *slot), x_THWC),
        x_THWC.new_empty((late, *slot)),
    )
    for part, source in zip(parts, torch.split(frames, [count - late, late]), strict=True):
        if len(part):
            lines = [source[:, k:][:, : _ROWS * tiles - 3 : _ROWS] for k in range(_ROWS + 2)]
            temporary = stream.work("temporary", (2, len(part), *slot[1:]), x_THWC)
            split_lines(lines, part.unbind(1), temporary.unbind())
    return parts


def room_for_rows(x_THWC: Tensor, channels: int) -> Tensor:
    """Uninitialised outcome of the filter, [T, 4 R, W, O]: H and what fills the last tile."""
    count, height, width = x_THWC.shape[:3]
    return x_THWC.new_empty((count, _ROWS * _tiles(height), width, channels))


def filter_frame(
    slots_6RWC: Tensor, kernels: Kernels, outcome: Tensor, stream: VideoStream
) -> None:
    """One frame on its own, which has no other's share in it, into [4 R, W, O]."""
    products = _products(torch.split(channels_first(slots_6RWC), 1), kernels, stream)
    merge_products(products, [channels_first(rows) for rows in _tile_rows(outcome[None])])


def filter_frames(
    frames: Sequence[Tensor],
    kernels: Callable[[RowKind], Kernels],
    outcome: Tensor,
    stream: VideoStream,
) -> None:
    """T + 2 frames of [6, R, W, C] each into [T, 4 R, W, O]."""
    start, count = 0, len(outcome)
    most = 4 if frames[0].shape[-1] >= _FEWEST_CHANNELS else 1
    while start < count:
        outputs = next(n for n in (4, 2, 1) if n <= min(most, count - start))
        part, target = frames[start : start + outputs + PAST], outcome[start : start + outputs]
        if outputs == 1:
            # the taps' frames side by side as channels
            stacked = torch.cat(list(part), dim=-1)
            filter_frame(stacked, kernels("stacked rows"), target[0], stream)
        else:
            _transformed(part, kernels(_FRAMES[outputs]), target, stream)
        start += outputs


def row_kernels(weight_OIThw: Tensor, bias_O: Tensor, kind: RowKind) -> Kernels:
    """Kernels of all products, those over time within those over rows, [O, C, 1, 3] each."""
    weight = weight_OIThw.double()
    if kind == "last rows":
        over_time, shares = weight[None, :, :, -1], [1.0]
    elif kind == "stacked rows":
        over_time, shares = weight.transpose(1, 2).flatten(1, 2)[None], [1.0]
    else:
        outputs = next(n for n, name in _FRAMES.items() if name == kind)
        transform = kernel_transform(outputs).to(weight.device)
        over_time = torch.einsum("sk,oikhw->soihw", transform, weight)
        shares = bias_transform(outputs).tolist()
    rows = kernel_transform(_ROWS).to(weight.device)
    products = torch.einsum("rh,soihw->rsoiw", rows, over_time).to(weight_OIThw.dtype)
    found: Kernels = []
    for row_share, slots in zip(bias_transform(_ROWS).tolist(), products, strict=True):
        for share, kernel in zip(shares, slots, strict=True):
            bias = bias_O * (share * row_share) if share * row_share else None
            found.append((packed(kernel[:, :, None]), bias))
    return found


def _transformed(
    frames: Sequence[Tensor], kernels: Kernels, outcome: Tensor, stream: VideoStream
) -> None:
    """One slot of rows after the other: what belongs to one fits into a processor's cache."""
    outputs, rows, width, channels = outcome.shape
    count, part = SLOTS[outputs], frames[0].shape[1:]
    slots = stream.work("slots", (count, *part), outcome)
    filled, read = slots.unbind(), torch.split(channels_first(slots), 1)
    temporary = stream.work("temporary", (2, *part), outcome).unbind()
    size = (SLOTS[_ROWS], outputs, rows // _ROWS, width, channels)
    sums = stream.work("sums", size, outcome).unbind()
    for row, sum_ in enumerate(sums):
        split_lines([frame[row] for frame in frames], filled, temporary)
        own = kernels[row * count : (row + 1) * count]
        merge_products(_products(read, own, stream), torch.split(channels_first(sum_), 1))
    merge_products(sums, _tile_rows(outcome))


def _products(slots_1CRW: Sequence[Tensor], kernels: Kernels, stream: VideoStream) -> list[Tensor]:
    """Over columns: [1, O, R, W] each."""
    pad = 1 if stream.border.whole else 0
    return [
        convolve(slot, weight, bias, (0, pad))
        for slot, (weight, bias) in zip(slots_1CRW, kernels, strict=True)
    ]


def _tiles(height: int) -> int:
    return -(-height // _ROWS)


def _tile_rows(outcome_THWO: Tensor) -> list[Tensor]:
    """First to fourth rows of all tiles."""
    return [outcome_THWO[:, row::_ROWS] for row in range(_ROWS)]
