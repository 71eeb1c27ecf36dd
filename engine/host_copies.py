"""Copies between host and device: decoded pictures one batch ahead of whoever takes them.

A device works on what was ordered while the host does something else. So the next batch is ordered
before the last one is taken: encoding pictures then runs beside decoding the following ones. Every
picture is the same, and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.base import DecodedFrames

Pictures = NDArray[np.uint8]


class HostCopies(Protocol):
    """Copies of decoded pictures to the host."""

    @property
    def ahead(self) -> bool:
        """Whether they run beside the host: then the next batch is ordered before one is taken."""
        ...

    def begin(self, pixels: Tensor) -> Callable[[], Pictures]:
        """Order a copy of uint8 [n, H, W, 3]; what is returned waits for it, once."""
        ...


class CopiesAtOnce:
    """What a CPU has made is there already; what a GPU has is waited for."""

    ahead = False

    def begin(self, pixels: Tensor) -> Callable[[], Pictures]:
        return lambda: pixels.cpu().numpy()


class PinnedCopies:
    """From a GPU into pinned memory, in the order of its work."""

    ahead = True

    def begin(self, pixels: Tensor) -> Callable[[], Pictures]:
        host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
        host.copy_(pixels, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(pixels.device))

        def wait() -> Pictures:
            done.synchronize()
            return host.numpy()

        return wait


def on_host(
    batches: Iterator[DecodedFrames], copies: HostCopies
) -> Iterator[tuple[Pictures, Tensor]]:
    """Pixels on the host and `exact` of each batch, one batch ahead if the copies are."""
    if copies.ahead:
        yield from one_ahead(batches, copies)
        return
    for batch in batches:
        yield copies.begin(batch.pixels)(), batch.exact


def one_ahead(
    batches: Iterator[DecodedFrames], copies: HostCopies
) -> Iterator[tuple[Pictures, Tensor]]:
    """Pixels on the host and `exact` of each batch, when the one after it has been ordered."""
    waiting: tuple[Callable[[], Pictures], Tensor] | None = None
    for batch in batches:
        ordered = copies.begin(batch.pixels), batch.exact
        if waiting is not None:
            yield waiting[0](), waiting[1]
        waiting = ordered
    if waiting is not None:
        yield waiting[0](), waiting[1]


def to_device(values: NDArray[np.float32], device: torch.device) -> Tensor:
    """A copy in the order of the device's work, which the host does not wait for."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
