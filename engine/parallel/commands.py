"""Commands from the process that serves to those that follow: a name, and arguments with tensors.

The header travels over a gloo group of its own, so that a follower reads it without waiting for
its GPU and nothing on the leader's GPU waits for a follower's host; the tensors follow over the
group of the devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from visavis.engine.parallel.launch import IDLE_LIMIT

LEADER = 0


@dataclass(frozen=True, slots=True)
class _Slot:
    """The place of a tensor in a command's arguments."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Command:
    """What to do, and with what. Arguments must be picklable but for their tensors."""

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
        self._control = dist.new_group(backend="gloo", timeout=IDLE_LIMIT)
        self._open = True

    def send(self, name: str, *arguments: Any) -> None:
        """Leader: give all followers a command; returns when it is on its way."""
        leaves, structure = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        header = [
            _Slot(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in leaves
        ]
        dist.broadcast_object_list([(name, header, structure)], LEADER, group=self._control)
        for tensor in tensors:
            dist.broadcast(tensor.to(self.device).contiguous(), LEADER)

    def receive(self) -> Command:
        """Follower: wait for the next command."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, LEADER, group=self._control)
        name, header, structure = box[0]
        leaves = []
        for leaf in header:
            if isinstance(leaf, _Slot):
                leaf = torch.empty(leaf.shape, dtype=leaf.dtype, device=self.device)
                dist.broadcast(leaf, LEADER)
            leaves.append(leaf)
        return Command(name, tuple(tree_unflatten(leaves, structure)))

    def close(self) -> None:
        """Leader: let the followers end. Safe to call twice."""
        if self.leads and self._open:
            self.send(STOP)
        self._open = False


STOP = "stop"
