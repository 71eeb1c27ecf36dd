"""Work that runs beside what a GPU does next; on a CPU it is just done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """A second stream of a GPU, made when it is first needed. Blocks on it run one after another.

    Memory that was made on it may be used on the usual stream after `join`, and given up at any
    time: each block waits for all that was ordered before it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    @contextmanager
    def beside(self, *read: Tensor) -> Iterator[None]:
        """What the block orders comes after what was ordered so far, beside what is ordered next.

        `read`: tensors of the usual stream that it reads; they may be given up at once.
        """
        if self._device.type != "cuda":
            yield
            return
        stream = self._made()
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            yield
        for tensor in read:
            if tensor.is_cuda:
                tensor.record_stream(stream)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The block, on another thread, reads nothing that the usual stream still makes, and
        gives nothing to it: neither waits for the other."""
        if self._device.type != "cuda":
            yield
            return
        with torch.cuda.stream(self._made()):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """A point after all blocks so far, for `join`."""
        return None if self._stream is None else self._stream.record_event()

    def join(self, mark: torch.cuda.Event | None) -> None:
        """What is ordered next on the usual stream comes after `mark`."""
        if mark is not None:
            torch.cuda.current_stream(self._device).wait_event(mark)

    def _made(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream


class Turns:
    """Blocks that use the same memory of a GPU: each comes after the one before, on any stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: torch.cuda.Event | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        """What the block orders comes after what the last block ordered."""
        if self._device.type != "cuda":
            yield
            return
        stream = torch.cuda.current_stream(self._device)
        if self._last is not None:
            stream.wait_event(self._last)
        try:
            yield
        finally:
            self._last = stream.record_event()
