"""Commands from the process that serves to those that follow: a name, and arguments with tensors.

The header travels over a gloo group of its own, so that a follower reads it without waiting for
its GPU and nothing on the leader's GPU waits for a follower's host; the tensors follow over the
group of the devices.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from visavis.engine.parallel.launch import IDLE_LIMIT
from visavis.engine.parallel.loss import GroupLostError
from visavis.engine.parallel.side_channel import Lookout, Tether
from visavis.engine.parallel.watchdog import StepWatch

LEADER = 0
STOP = "stop"


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of a tensor in a command's arguments."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Command:
    """What to do, and with what: tensors, tuples with tensors in them, and what can be pickled."""

    name: str
    arguments: tuple[Any, ...]


class CommandChannel:
    """One process's end; every process of the default group makes one, at the same time.

    The leader's calls must come from one thread, that which computes: commands and collectives
    have to be in one order everywhere.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.leads = dist.get_rank() == LEADER
        self.world = dist.get_world_size()
        self.generation = 0
        self.watch = StepWatch()
        self.lookout: Lookout | None = None
        self.tether: Tether | None = None
        self.open()

    def open(self) -> None:
        """Begin, or begin anew with other followers after the group was lost and joined again."""
        self.generation += 1
        self._control = dist.new_group(backend="gloo", timeout=IDLE_LIMIT)
        self._open = True

    @property
    def lost(self) -> bool:
        """Whether the followers are gone, or no longer in step."""
        return self.lookout is not None and self.lookout.loss is not None

    @contextmanager
    def together(self, name: str, *kind: Hashable) -> Iterator[None]:
        """Leader: the block is work that all processes share; pieces of one `kind` take as long.

        Whatever fails in it leaves the others in the middle of it: the group is lost then.

        Raises:
            GroupLostError: before or during the block.
        """
        if self.lookout is None:
            yield
            return
        self.lookout.check()
        try:
            with self.watch.piece(name, *kind):
                yield
        except GroupLostError:
            raise
        except Exception as error:
            raise GroupLostError(self.lookout.blame(error, name)) from error
        self.lookout.check()

    def send(self, name: str, *arguments: Any) -> None:
        """Leader: give all followers a command; returns when it is on its way."""
        tensors: list[Tensor] = []
        header = (name, _without_tensors(arguments, tensors))
        dist.broadcast_object_list([header], LEADER, group=self._control)
        for tensor in tensors:
            dist.broadcast(tensor.to(self.device).contiguous(), LEADER)

    def receive(self) -> Command:
        """Follower: wait for the next command."""
        if self.tether is not None:
            self.tether.busy("")
        box: list[Any] = [None]
        dist.broadcast_object_list(box, LEADER, group=self._control)
        name, arguments = box[0]
        if self.tether is not None:
            self.tether.busy(name)
        return Command(name, self._with_tensors(arguments))

    def _with_tensors(self, value: Any) -> Any:
        if isinstance(value, _Slot):
            tensor = torch.empty(value.shape, dtype=value.dtype, device=self.device)
            dist.broadcast(tensor, LEADER)
            return tensor
        if isinstance(value, tuple):
            return tuple(self._with_tensors(part) for part in value)
        return value

    def close(self) -> None:
        """Leader: let the followers end. Safe to call twice."""
        if self.leads and self._open and not self.lost:
            self.send(STOP)
        self._open = False


def _without_tensors(value: Any, tensors: list[Tensor]) -> Any:
    """The value with slots for its tensors and those in its tuples, which go to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Slot(tuple(value.shape), value.dtype)
    if isinstance(value, tuple):
        return tuple(_without_tensors(part, tensors) for part in value)
    return value
