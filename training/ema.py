"""Exponential moving average of a model's parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """Averages the parameters of `model` in float32; of those in pieces, the process's own piece.

    The decay warms up as min(decay, (1 + n) / (10 + n)), so that the random initialisation is
    forgotten within the first updates.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.updates = 0
        self._average = {
            name: parameter.detach().float().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, current = [], []
        for name, parameter in model.named_parameters():
            averages.append(self._average[name])
            current.append(parameter.detach().float())
        torch._foreach_lerp_(averages, current, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's parameters with the average.

        Averages in pieces are put together for a whole model: every process has to call this.
        """
        for name, parameter in model.named_parameters():
            average = self._average[name]
            whole = isinstance(average, DTensor) and not isinstance(parameter, DTensor)
            parameter.copy_(average.full_tensor() if whole else average)  # type: ignore[attr-defined]

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's parameters (float32) and the average; twice changes nothing."""
        for name, parameter in model.named_parameters():
            held = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(held)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Averages by parameter name, and the number of updates."""
        return {**self._average, "__updates__": self.updates}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Inverse of `state_dict`; raises ValueError if the names differ from the model's."""
        names = set(state) - {"__updates__"}
        if names != set(self._average):
            odd = sorted(names ^ set(self._average))
            raise ValueError(f"averages do not fit the model: {odd[:5]}; was its size changed?")
        for name, average in self._average.items():
            average.copy_(torch.as_tensor(state[name]))
        self.updates = int(state["__updates__"])
