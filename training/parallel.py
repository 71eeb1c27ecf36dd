"""The processes of a run, and what each of them holds: here, whole copies of small models.

`training.sharding` is the other way: models too large for one device, in pieces. Both are given to
the same trainers.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visavis.training.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from visavis.training.ema import Ema

CHECKPOINT: Final = "checkpoint.pt"
Model = TypeVar("Model", bound=nn.Module)


class DesyncError(RuntimeError):
    """Processes drew different numbers where all must draw the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """All that a run carries from step to step, by the names that a checkpoint gives them.

    `optimizers` name the model that they step; `plain` is numbers, strings and dicts of them.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, tuple[str, torch.optim.Optimizer]]
    averages: Mapping[str, Ema] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)


class Workers:
    """This process among its peers; a lone process needs no launcher.

    Every process holds whole models, and gradients are averaged (torchrun, gloo).
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))

    def __enter__(self) -> "Workers":
        if self.count > 1:
            dist.init_process_group(self.backend)
        return self

    def __exit__(self, *_: object) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def backend(self) -> str:
        """Backend of the process group."""
        return "gloo"

    @property
    def device(self) -> torch.device:
        """Where models compute."""
        return torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def generator(self, seed: int) -> torch.Generator:
        """A generator on the device; all noise of a run is drawn from such."""
        return torch.Generator(self.device).manual_seed(seed)

    def place(self, model: Model, *, trained: bool = True) -> Model:
        """Bring a model to where it computes, before an optimiser takes its parameters.

        `trained`: it will get gradients.
        """
        return model

    def autocast(self, enabled: bool) -> AbstractContextManager[object]:
        """The precision of forward passes: bfloat16 where `enabled`."""
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

    def streams(self, total: int) -> range:
        """Which micro-batches of a step are this process's; `total` 0: one of each process.

        Data and noise belong to a micro-batch and not to a process: a run of so many streams is
        the same on any number of processes that divides it.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        total = total or self.count
        if total % self.count:
            raise ValueError(
                f"streams={total} cannot be shared by {self.count} processes; set a multiple of "
                f"{self.count}"
            )
        return range(self.rank, total, self.count)

    def agree(self, drawn: object) -> None:
        """See that all processes drew the same: one that went another way would wait for ever.

        Raises:
            DesyncError: they did not; every process raises it.
        """
        if self.count == 1:
            return
        everyone: list[object] = [None] * self.count
        dist.all_gather_object(everyone, repr(drawn))
        if len(set(map(str, everyone))) > 1:
            raise DesyncError(
                f"processes drew differently: {everyone}; start all with one recipe and checkpoint"
            )

    def average(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over processes; the names are the same everywhere."""
        if self.count == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(values, (sums / self.count).tolist(), strict=True))

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

    def clip(self, model: nn.Module, limit: float) -> float:
        """Scale gradients down to a norm of at most `limit`; returns the norm they had."""
        return float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))

    def has_checkpoint(self, folder: Path) -> bool:
        """Whether there is something to go on from."""
        return (folder / CHECKPOINT).exists()

    def save(self, folder: Path, parts: RunParts) -> None:
        """Write a checkpoint; called by the leader, the others may."""
        if self.leads:
            save_checkpoint(folder / CHECKPOINT, dict(_states(parts)))

    def read_plain(self, folder: Path) -> dict[str, Any]:
        """A checkpoint's plain values, nothing filled.

        Raises:
            FileNotFoundError: there is none.
        """
        state = read_checkpoint(folder / CHECKPOINT)
        return {name: state[name] for name in ("step", "elapsed", "recipe")}

    def load(self, folder: Path, parts: RunParts) -> dict[str, Any]:
        """Fill models, optimisers and averages from a checkpoint; returns its plain values.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of other sizes.
        """
        state = load_checkpoint(folder / CHECKPOINT)
        for name, model in parts.models.items():
            model.load_state_dict(state[name])
        for name, average in parts.averages.items():
            average.load_state_dict(state[name])
        for name, (_, optimizer) in parts.optimizers.items():
            optimizer.load_state_dict(state[name])
        return {name: state[name] for name in parts.plain}


def _states(parts: RunParts) -> Iterator[tuple[str, Any]]:
    for name, model in parts.models.items():
        yield name, model.state_dict()
    for name, average in parts.averages.items():
        yield name, average.state_dict()
    for name, (_, optimizer) in parts.optimizers.items():
        yield name, optimizer.state_dict()
    yield from parts.plain.items()


def backward_share(loss: Tensor, parts: int) -> None:
    """Back-propagate one of `parts` micro-batches, so that their gradients add up to the mean."""
    (loss / parts).backward()  # type: ignore[no-untyped-call]
