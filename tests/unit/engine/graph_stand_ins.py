"""Stand-ins for CUDA graphs on a CPU: `Capture` of `engine.dit.step_graph`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visavis.engine.dit.step_graph import WARM_UPS


def repeat(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A recording that computes anew from where its arguments lay, as a CUDA graph does."""
    result = call().clone()

    def replay() -> None:
        result.copy_(call())

    return replay, result


class Tape(TorchDispatchMode):
    """The operators of a call and the very tensors that they read and wrote.

    Like a CUDA graph, and unlike `repeat`, it knows nothing of the Python around them: it reads
    from the memory that the recorded call read from, whatever has become of the names.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """The same again, the results where they were."""
        for func, args, kwargs, out in self._calls:
            for place, made in zip(
                tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if isinstance(place, Tensor) and place.data_ptr() != made.data_ptr():
                    place.copy_(made)


def tape(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A recording of operators; as for a CUDA graph, the call has run before."""
    for _ in range(WARM_UPS):
        call()
    recorder = Tape()
    with recorder:
        result = call()
    return recorder.replay, result
