"""Blocks whose weights wait in host memory and visit the device one ahead of their turn.

Weights do not change, so nothing is ever copied back: a block that leaves is pointed at its host
copy again and its place is written over. While one block computes, the next one's weights are on
their way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from visavis.engine.weight_memory import OffloadError

ALIGNMENT = 256  # bytes between tensors of a block, for the widest loads
# What is called on a block besides its forward: conditions prepared once a session or a chunk.
ENTRANCES = ("steer", "cross_attention.project", "audio_attention.project", "audio_attention.fold")


class Transport(Protocol):
    """How bytes get from the host to the device, and who waits for whom."""

    def host(self, size: int) -> Tensor:
        """uint8 [size] in host memory from which copies need not wait."""
        ...

    def place(self, size: int) -> Tensor:
        """uint8 [size] on the device."""
        ...

    def begin(self, place: Tensor, source: Tensor) -> object:
        """Start a copy that waits for all computing ordered so far; what `finish` takes."""
        ...

    def finish(self, copy: object) -> None:
        """Computing ordered from now on waits for the copy; the caller need not."""
        ...


class CudaTransport:
    """Pinned memory and a stream of its own for the copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def place(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def begin(self, place: Tensor, source: Tensor) -> object:
        # the place may still be read by a block that was ordered before
        self._copies.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._copies):
            place[: source.numel()].copy_(source, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._copies)
        return done

    def finish(self, copy: object) -> None:
        torch.cuda.current_stream(self._device).wait_event(cast(torch.cuda.Event, copy))


class DirectTransport:
    """Copies at once, within the host's memory: for a CPU, where offloading saves nothing."""

    def host(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def place(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def begin(self, place: Tensor, source: Tensor) -> object:
        place[: source.numel()].copy_(source)
        return None

    def finish(self, copy: object) -> None:
        """Nothing to wait for."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a parameter or buffer lies in its block's bytes."""

    tensor: Tensor
    start: int
    size: int

    def view(self, memory: Tensor) -> Tensor:
        raw = memory[self.start : self.start + self.size]
        return raw.view(self.tensor.dtype).view(self.tensor.shape)


class BlockOffload:
    """Moves the weights of a model's blocks; made once, it acts through the blocks' own calls.

    The first `resident` blocks stay on the device. The others share `PLACES` places there.
    """

    PLACES = 2

    def __init__(
        self, blocks: Sequence[nn.Module], transport: Transport, *, resident: int = 0
    ) -> None:
        """Take the weights of `blocks`, which are called in this order again and again.

        Args:
            blocks: on the CPU, with their final weights, not quantised.
            resident: so many first blocks are put on the device for good.

        Raises:
            OffloadError: nothing is left to offload, or weights that are no plain tensors.
        """
        if not 0 <= resident < len(blocks):
            raise OffloadError(
                f"resident={resident}: of {len(blocks)} blocks at least one must be offloaded; "
                "with room for all, move the model to the device instead"
            )
        self._transport = transport
        self._entries = [_layout(block) for block in blocks]
        self._hosts = [self._fill(transport.host, entries) for entries in self._entries]
        for index in range(resident):
            place = transport.place(self._hosts[index].numel())
            transport.finish(transport.begin(place, self._hosts[index]))
            _point(self._entries[index], place)
            self._hosts[index] = place  # the host's copy is not needed any more
        self._moving = range(resident, len(blocks))
        largest = max(self._hosts[i].numel() for i in self._moving)
        self._places = [transport.place(largest) for _ in range(self.PLACES)]
        self._held: list[int | None] = [None] * self.PLACES
        self._copies: dict[int, object] = {}
        for index in self._moving:
            self._wrap(blocks[index], index)

    @property
    def device_bytes(self) -> int:
        """What the blocks take of the device: the residents, and the places of the others."""
        residents = sum(host.numel() for host in self._hosts[: self._moving.start])
        return residents + sum(place.numel() for place in self._places)

    @property
    def host_bytes(self) -> int:
        """What the blocks take of the host's memory."""
        return sum(self._hosts[index].numel() for index in self._moving)

    def _fill(self, allocate: Callable[[int], Tensor], entries: list[_Entry]) -> Tensor:
        memory = allocate(entries[-1].start + entries[-1].size)
        for entry in entries:
            entry.view(memory).copy_(entry.tensor)
        _point(entries, memory)
        return memory

    def _enter(self, index: int) -> None:
        """Have a block's weights on the device, and the next block's on their way."""
        place = self._bring(index)
        self._transport.finish(self._copies[index])
        _point(self._entries[index], self._places[place])
        following = index + 1 if index + 1 < len(self._hosts) else self._moving.start
        if following != index:
            self._bring(following, keep=place)

    def _bring(self, index: int, keep: int | None = None) -> int:
        """The place of a block, to which a copy of it has at least begun."""
        if index in self._held:
            return self._held.index(index)
        place = next(p for p in range(self.PLACES) if p != keep)
        if keep is None and None in self._held:
            place = self._held.index(None)
        leaving = self._held[place]
        if leaving is not None:
            _point(self._entries[leaving], self._hosts[leaving])
            del self._copies[leaving]
        self._copies[index] = self._transport.begin(self._places[place], self._hosts[index])
        self._held[place] = index
        return place

    def _wrap(self, block: nn.Module, index: int) -> None:
        for path in ("forward", *ENTRANCES):
            *parents, name = path.split(".")
            owner: Any = block
            for parent in parents:
                owner = getattr(owner, parent, None)
            method = getattr(owner, name, None)
            if method is not None:
                setattr(owner, name, self._entering(method, index))

    def _entering(self, method: Callable[..., Any], index: int) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._enter(index)
            return method(*args, **kwargs)

        return call


def _layout(block: nn.Module) -> list[_Entry]:
    entries, at = [], 0
    for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
        if type(tensor.data) is not Tensor:
            raise OffloadError(
                f"{name} is a {type(tensor.data).__name__}; offload plain weights, or quantise "
                "them and keep them on the device"
            )
        size = tensor.numel() * tensor.element_size()
        entries.append(_Entry(tensor, at, size))
        at += -(-size // ALIGNMENT) * ALIGNMENT
    if not entries:
        raise OffloadError(f"{type(block).__name__} has no weights; leave it out")
    return entries


def _point(entries: list[_Entry], memory: Tensor) -> None:
    for entry in entries:
        entry.tensor.data = entry.view(memory)
