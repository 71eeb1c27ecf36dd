"""The VAE's work of one latent recorded once and replayed: CUDA graphs.

A latent's pass through the decoder starts some hundred kernels, each so short on a tile of the
picture that the host cannot keep up. A replay starts them with one call. What a video remembers
from latent to latent then lies in places of its own, one set for a picture size: a pass reads it
there and writes it there. A video that another one displaces takes its memory with it, and brings
it back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from visavis.engine.codec.wan_stream import Border, VideoStream
from visavis.engine.dit.step_graph import Capture, capture_cuda_graph
from visavis.engine.side_stream import Turns

VideoStep = Callable[[Tensor, VideoStream], Tensor]
"""(the next latent or frames [T, H, W, C], what their video remembers) -> what is made of them."""


class _Places(VideoStream):
    """A stream that writes its memory where it has always been."""

    def __init__(self, border: Border) -> None:
        super().__init__(border)
        self.places: dict[nn.Module, Tensor] = {}

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        place = self.places.get(layer)
        if place is None:  # in the first run of all, which is not recorded yet
            place = frames.clone(memory_format=torch.contiguous_format)
            self.places[layer] = place
        else:
            place.copy_(frames)
        self.memory[layer] = place

    def keep_copy(self, layer: nn.Module, frames: Tensor) -> None:
        self.keep(layer, frames)


@dataclass(slots=True)
class _Recording:
    held: Tensor
    replay: Callable[[], None]
    result: Tensor


@dataclass(slots=True)
class _Size:
    """Of one size of picture: the places, whose memory lies in them, and the recordings."""

    stream: _Places
    owner: weakref.ref[VideoStream] | None = None
    recordings: dict[tuple[int, bool], _Recording] = field(default_factory=dict)

    def settle(self) -> None:
        """Leave the places: their video, if there still is one, gets its memory copied."""
        owner = None if self.owner is None else self.owner()
        if owner is not None:
            owner.memory, owner.lent = owner.saved(), False
        self.owner = None

    def enter(self, stream: VideoStream) -> None:
        """Bring a video's memory into the places."""
        if self.owner is not None and self.owner() is stream:
            return
        self.settle()
        for layer, frames in stream.memory.items():
            self.stream.places[layer].copy_(frames)
            if frames.is_cuda:  # made on one stream of the GPU, perhaps, and read on another
                frames.record_stream(torch.cuda.current_stream(frames.device))

    def lend(self, stream: VideoStream) -> None:
        """A video's memory is what the last replay left in the places."""
        stream.memory, stream.lent = dict(self.stream.places), True
        self.owner = weakref.ref(stream)


class RecordedSteps:
    """Replays `step`, encoder or decoder of the VAE, with the same results.

    One recording for a video's first piece and one for its others, for each size of picture. Only
    one replay is under way at a time, whichever streams of the GPU they are ordered on.
    """

    def __init__(
        self, step: VideoStep, device: torch.device, capture: Capture = capture_cuda_graph
    ) -> None:
        """`capture`: other than a CUDA graph in tests."""
        self._step = step
        self._capture = capture
        self._turns = Turns(device)
        self._sizes: dict[Any, _Size] = {}

    def __call__(self, x_THWC: Tensor, stream: VideoStream) -> Tensor:
        """As `step`; the result is the caller's own."""
        with self._turns.one():
            size = self._size(x_THWC, stream)
            kind = len(x_THWC), bool(stream.memory)
            recording = size.recordings.get(kind)
            if recording is None:
                recording = size.recordings[kind] = self._record(size, x_THWC, stream)
            size.enter(stream)
            recording.held.copy_(x_THWC)
            recording.replay()
            size.lend(stream)
            return recording.result.clone()

    def _size(self, x_THWC: Tensor, stream: VideoStream) -> _Size:
        border = None if stream.border.whole else stream.border
        key = (*x_THWC.shape[1:], x_THWC.dtype, border)
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = _Size(_Places(stream.border))
        return size

    def _record(self, size: _Size, x_THWC: Tensor, stream: VideoStream) -> _Recording:
        """Whatever lies in the places is overwritten by it."""
        size.settle()
        own, goes_on = size.stream, bool(stream.memory)
        for layer, frames in stream.memory.items():
            if layer not in own.places:
                own.keep(layer, frames)
        held = x_THWC.clone(memory_format=torch.contiguous_format)

        def run() -> Tensor:
            own.memory = dict(own.places) if goes_on else {}
            return self._step(held, own)

        replay, result = self._capture(run)
        return _Recording(held, replay, result)
