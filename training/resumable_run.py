"""What a training run of one model carries from step to step, and how it goes on after a stop."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

import torch
from cyclopts import Parameter
from torch import Tensor, nn

from visavis.training.ema import Ema
from visavis.training.parallel import CHECKPOINT as CHECKPOINT
from visavis.training.parallel import RunParts, Workers
from visavis.training.progress import log

Model = TypeVar("Model", bound=nn.Module)


AllowChanges = Annotated[bool, Parameter(negative="")]
"""A command's option `--allow-changes`."""

# What a run may be told anew when it goes on: its end, and how it is kept and watched.
MAY_CHANGE: Final = frozenset(
    {
        "steps",
        "minutes",
        "log_every",
        "save_minutes",
        "validate_minutes",
        "sheet_minutes",
        "validation_sequences",
        "validation_chunks",
        "compile",
    }
)


class ChangedRecipeError(ValueError):
    """A checkpoint of another recipe; names the fields and what can be done."""


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

    @property
    def done(self) -> float:
        """Share of the run that is behind, 0..1."""
        return share_done(self.recipe.steps, self.recipe.minutes, self.step, self.elapsed)

    @property
    def finished(self) -> bool:
        """Whether the recipe's time or step count is reached."""
        return self.done >= 1

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
            plain={"step": self.step, "elapsed": self.elapsed, "recipe": self.told()},
        )

    def told(self) -> dict[str, Any]:
        """All that the run was told, as a checkpoint keeps it."""
        return asdict(self.recipe)

    def save(self, folder: Path) -> None:
        """Write the checkpoint; every process of a run whose models are in pieces has to."""
        self.workers.save(folder, self.parts())

    def resume(self, folder: Path, *, allow_changes: bool = False) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            ChangedRecipeError: it was made by another recipe, and `allow_changes` is not set. How
                long a run is and how often it saves or reports may change: it is logged.
        """
        if not self.workers.has_checkpoint(folder):
            return False
        changes = changed_fields(self.workers.read_plain(folder)["recipe"], self.told())
        refused = {name: change for name, change in changes.items() if name not in MAY_CHANGE}
        if refused and not allow_changes:
            raise ChangedRecipeError(
                f"{folder}: the recipe is not its checkpoint's: {_listed(refused)}; take the old "
                "values or another folder, or go on with the new ones by --allow-changes"
            )
        if changes:
            log.warning("%s: goes on with %s", folder, _listed(changes))
        plain = self.workers.load(folder, self.parts())
        self.step, self.elapsed = int(plain["step"]), float(plain["elapsed"])
        return True


def resume_or_exit(job: ResumableRun[Any], folder: Path, *, allow_changes: bool) -> bool:
    """`resume` for a command: a changed recipe ends the program with its message."""
    try:
        return job.resume(folder, allow_changes=allow_changes)
    except ChangedRecipeError as error:
        raise SystemExit(str(error)) from None


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of all that differs, tables' fields as "table.field".

    Fields that one of them does not know are left out: an older recipe had no such choice.
    """
    changes: dict[str, tuple[Any, Any]] = {}
    for name in before.keys() & now.keys():
        old, new = _plain(before[name]), _plain(now[name])
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = changed_fields(old, new)
            changes |= {f"{name}.{field}": change for field, change in inner.items()}
        elif old != new:
            changes[name] = (old, new)
    return dict(sorted(changes.items()))


def _plain(value: Any) -> Any:
    # JSON, which checkpoints in pieces are described in, knows no tuples
    return list(value) if isinstance(value, tuple) else value


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name}={new} (was {old})" for name, (old, new) in changes.items())


def share_done(steps: int, minutes: float, step: int, elapsed: float) -> float:
    """Share 0..1 of a run that ends at so many steps or minutes, whichever comes first.

    `elapsed` is in seconds. With infinite `minutes` it hangs on the step alone.
    """
    return min(1.0, max(step / steps, elapsed / (60 * minutes)))


def warmth(step: int, warm_up_steps: int) -> float:
    """What of the learning rate the first steps get: rises to 1."""
    return min(1.0, (step + 1) / warm_up_steps)


def cosine_fall(done: float, rate: float, final_rate: float, decay_share: float) -> float:
    """`rate`, falling as a cosine to `final_rate` over the last `decay_share` of the run.

    `done` is the share of the run behind, 0..1.
    """
    falling = max(0.0, (done - (1 - decay_share)) / max(decay_share, 1e-9))
    return final_rate + (rate - final_rate) * 0.5 * (1 + math.cos(math.pi * falling))
