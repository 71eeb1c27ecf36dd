"""What a training run of one model carries from step to step, and how it goes on after a stop."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from visavis.training.ema import Ema
from visavis.training.parallel import CHECKPOINT as CHECKPOINT
from visavis.training.parallel import RunParts, Workers

Model = TypeVar("Model", bound=nn.Module)


class ResumableRun(Generic[Model]):
    """A model, its average, its optimiser and the clock; `recipe` is a frozen dataclass."""

    def __init__(
        self,
        recipe: Any,
        model: Model,
        optimizer: torch.optim.Optimizer,
        workers: Workers,
    ) -> None:
        self.recipe, self.model, self.optimizer = recipe, model, optimizer
        self.workers = workers
        self.ema = Ema(model, recipe.ema_decay)
        self.step = 0
        self.elapsed = 0.0

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self, loss: Tensor | None = None) -> float:
        """One optimiser step, gradients averaged over processes; returns their norm.

        Without a `loss` the gradients are those that backward passes before have left.
        """
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        norm = self.descend(self.model, self.optimizer)
        self.ema.update(self.model)
        self.step += 1
        return norm

    def descend(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Average the gradients over processes, clip them and step; returns their norm."""
        self.elapsed = self.workers.average_gradients(model, self.elapsed)
        norm = self.workers.clip(model, self.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def average_into(self, copy: Model) -> Model:
        """Give a model of the same sizes the averaged weights, frozen."""
        self.ema.copy_to(copy)
        return copy.eval().requires_grad_(False)

    def parts(self) -> RunParts:
        """What a checkpoint holds."""
        return RunParts(
            models={"model": self.model},
            averages={"ema": self.ema},
            optimizers={"optimizer": ("model", self.optimizer)},
            plain={"step": self.step, "elapsed": self.elapsed, "recipe": asdict(self.recipe)},
        )

    def save(self, folder: Path) -> None:
        """Write the checkpoint; every process of a run whose models are in pieces has to."""
        self.workers.save(folder, self.parts())

    def resume(self, folder: Path) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        if not self.workers.has_checkpoint(folder):
            return False
        plain = self.workers.load(folder, self.parts())
        self.step, self.elapsed = int(plain["step"]), float(plain["elapsed"])
        return True


def warmth(step: int, warm_up_steps: int) -> float:
    """What of the learning rate the first steps get: rises to 1."""
    return min(1.0, (step + 1) / warm_up_steps)


def cosine_fall(done: float, rate: float, final_rate: float, decay_share: float) -> float:
    """`rate`, falling as a cosine to `final_rate` over the last `decay_share` of the run.

    `done` is the share of the run behind, 0..1.
    """
    falling = max(0.0, (done - (1 - decay_share)) / max(decay_share, 1e-9))
    return final_rate + (rate - final_rate) * 0.5 * (1 + math.cos(math.pi * falling))
