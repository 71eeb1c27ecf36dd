"""Data parallel training of a small model in a few CPU processes (torchrun, gloo)."""

import os

import torch
import torch.distributed as dist
from torch import nn


class Workers:
    """This process among its peers; a lone process needs no launcher."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))

    def __enter__(self) -> "Workers":
        if self.count > 1:
            dist.init_process_group("gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module, clock: float = 0.0) -> float:
        """Replace gradients by their mean over processes, in one message.

        `clock` travels along and comes back as the mean, so that all processes agree on the time
        and thus on schedules and on when to stop.
        """
        if self.count == 1:
            return clock
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([clock])])
        dist.all_reduce(flat)
        flat /= self.count
        pieces = torch.split(flat[:-1], [g.numel() for g in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
        return float(flat[-1])
