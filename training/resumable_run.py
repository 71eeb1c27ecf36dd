"""What a training run of one model carries from step to step, and how it goes on after a stop."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor, nn

from visavis.training.checkpoints import load_checkpoint, save_checkpoint
from visavis.training.ema import Ema
from visavis.training.parallel import Workers

CHECKPOINT: Final = "checkpoint.pt"
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

    def update(self, loss: Tensor) -> float:
        """One optimiser step, gradients averaged over processes; returns their norm."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.elapsed = self.workers.average_gradients(self.model, self.elapsed)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model)
        self.step += 1
        return float(norm)

    def average_into(self, copy: Model) -> Model:
        """Give a model of the same sizes the averaged weights, frozen."""
        self.ema.copy_to(copy)
        return copy.eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            folder / CHECKPOINT,
            {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
                "recipe": asdict(self.recipe),
            },
        )

    def resume(self, folder: Path) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        if not (folder / CHECKPOINT).exists():
            return False
        state = load_checkpoint(folder / CHECKPOINT)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = int(state["step"]), float(state["elapsed"])
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
