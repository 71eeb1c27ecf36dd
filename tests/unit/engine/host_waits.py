"""Modes that fail where the host would wait for a device; light, for processes of a group."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
}


class NoReads(TorchDispatchMode):
    """Fails at an operator whose result the host has to wait for; counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rpartition("::")[2]
        if name in READS:
            raise AssertionError(f"{name} waits for the device")
        self.seen += 1
        return func(*args, **(kwargs or {}))


class NoWaits(NoReads):
    """Fails at data from the host as well: such a copy waits for all that was ordered before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rpartition("::")[2]
        if name == "lift_fresh" and args[0].ndim:  # a number is an argument of the kernel
            raise AssertionError("values of the host are copied to the device")
        return super().__torch_dispatch__(func, types, args, kwargs)
