"""The VAE's causal 3x3x3 convolution, fast on each device.

In float32 on a CPU it is compiled and takes a sixth of the products that the filter's definition
asks for (`wan_conv_tiles`), or without a compiler a quarter, as sums of products of rows
(`wan_conv_cpu`). Elsewhere it is one 3-D convolution, whose input is written straight behind
the two frames it remembers, inside the margins it needs: no concatenation grows with the video and
nothing is copied to be padded.

Letters: T frames, H W picture size, C input and O output channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.codec.wan_conv_cpu import (
    ROW_KINDS,
    filter_frame,
    filter_frames,
    room_for_rows,
    row_kernels,
    row_slots,
)
from visavis.engine.codec.wan_conv_tiles import (
    KINDS_OF,
    TILE_KINDS,
    TileKind,
    framed,
    tile_kernels,
)
from visavis.engine.codec.wan_filter import (
    Filter,
    Kernels,
    channels_first,
    innermost,
    pictures,
)
from visavis.engine.codec.wan_stream import VideoStream, Write, copy
from visavis.engine.codec.wan_winograd import PAST, TAPS
from visavis.kernels.video import filter_tiles, padded, tiles_serve


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
        if tiles_serve(x_THWC):
            return self._by_tiles(x_THWC, stream, prepare, residual)
        if x_THWC.device.type == "cpu" and x_THWC.dtype in (torch.float32, torch.float64):
            outcome = self._by_rows(x_THWC, stream, prepare)
        else:
            outcome = self._as_volume(x_THWC, stream, prepare)
        return outcome if residual is None else outcome.add_(residual)

    def _by_tiles(
        self, x_THWC: Tensor, stream: VideoStream, prepare: Write, residual: Tensor | None
    ) -> Tensor:
        frames, kept = framed(x_THWC, stream, prepare)
        channels = self.weight.shape[0]
        outcome = x_THWC.new_empty((*x_THWC.shape[:3], padded(channels)))
        past = stream.memory.get(self)
        whole = residual is not None and channels == outcome.shape[3]
        added = residual.contiguous() if residual is not None and whole else None
        if past is None:
            self._filter_tiles(frames, "first tiles", outcome, added)
            stream.keep(self, torch.cat([torch.zeros_like(kept), kept]))
        else:
            seen, start = [*past.unbind(), *frames], 0
            while start < len(outcome):
                made = next(n for n in (4, 2, 1) if n <= len(outcome) - start)
                end = start + made
                part = None if added is None else added[start:end]
                self._filter_tiles(
                    seen[start : end + PAST], KINDS_OF[made], outcome[start:end], part
                )
                start = end
            stream.keep(self, kept if len(kept) == PAST else torch.stack(seen[-PAST:]))
        if channels < outcome.shape[3]:
            outcome = outcome[..., :channels].contiguous()
        return outcome if residual is None or whole else outcome.add_(residual)

    def _filter_tiles(
        self, seen: Sequence[Tensor], kind: TileKind, outcome: Tensor, residual: Tensor | None
    ) -> None:
        ((kernels, bias),) = self.kernels(kind)
        assert bias is not None
        filter_tiles(seen, kernels, bias, outcome, residual)

    def _by_rows(self, x_THWC: Tensor, stream: VideoStream, prepare: Write) -> Tensor:
        early, late = row_slots(x_THWC, stream, prepare)
        outcome = room_for_rows(x_THWC, self.weight.shape[0])
        past = stream.memory.get(self)
        if past is None:
            # what came before a video's first frame is zero
            filter_frame(late[0], self.kernels("last rows"), outcome[0], stream)
            stream.keep(self, torch.cat([torch.zeros_like(late), late]))
        else:
            frames = [*past.unbind(), *early.unbind(), *late.unbind()]
            filter_frames(frames, self.kernels, outcome, stream)
            stream.keep(self, late if len(late) == PAST else torch.stack(frames[-PAST:]))
        return outcome[:, : x_THWC.shape[1]].contiguous()

    def _as_volume(self, x_THWC: Tensor, stream: VideoStream, prepare: Write) -> Tensor:
        frames = self._place(x_THWC, stream, prepare)
        pad = 1 if stream.border.whole else 0
        if self not in stream.memory:
            (kernel,) = self.kernels("last")
            stream.keep(self, torch.cat([torch.zeros_like(frames), frames]))
            return pictures(F.conv2d(channels_first(frames), *kernel, padding=pad))
        (kernel,) = self.kernels("volume")
        volume = frames.permute(3, 0, 1, 2)[None]
        filtered = F.conv3d(volume, *kernel, padding=(0, pad, pad))
        stream.keep_copy(self, frames[-PAST:])
        return filtered[0].permute(1, 2, 3, 0).contiguous()

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

    def _derive(self, kind: object) -> Kernels:
        weight, bias = self.weight.detach(), self.bias.detach()
        if kind == "last":
            return [(innermost(weight[:, :, -1]), bias)]
        if kind == "volume":
            return [(weight.contiguous(memory_format=torch.channels_last_3d), bias)]
        if kind in TILE_KINDS:
            return tile_kernels(weight, bias, kind)
        if kind in ROW_KINDS:
            return row_kernels(weight, bias, kind)
        return super()._derive(kind)
