"""Whether a Triton kernel can serve a tensor, and one log line where something slower must.

A refusal is a sentence fragment that says in words why an implementation cannot run; None means
that it can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import Tensor

OLDEST_CAPABILITY = (8, 0)  # bf16 matrix units and asynchronous copies begin with Ampere

# the standard library's: these kernels want nothing but torch and Triton
log = logging.getLogger("visavis.kernels")

Result = TypeVar("Result", Tensor, tuple[Tensor, Tensor])


def differentiates(*tensors: Tensor | None) -> bool:
    """Whether autograd would record an operation on these tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


@cache
def triton_refusal(device: torch.device) -> str | None:
    """Why Triton cannot compile for this device, or None."""
    if device.type != "cuda":
        return f"the tensors are on {device.type!r}; Triton compiles for GPUs"
    if find_spec("triton") is None:
        return "the triton package is missing; install visavis[gpu]"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return (
            f"the GPU has compute capability {capability[0]}.{capability[1]}; "
            f"{OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]} or newer is needed"
        )
    return None


@cache
def tell_fallback(operation: str, chosen: str, refusals: tuple[tuple[str, str], ...]) -> None:
    """Warn, once per process and cause, that a slower implementation serves an operation.

    Args:
        operation: what was asked for.
        chosen: the implementation that serves it.
        refusals: (implementation, why not) of those that would have been preferred.
    """
    because = [f"{name}: {reason}" for name, reason in refusals]
    log.warning(
        "kernel fallback: %s by %s, because of %s",
        operation,
        chosen,
        "; ".join(because),
        extra={"operation": operation, "chosen": chosen, "because": because},
    )


# (operation, device type, dtype, width) that failed once: it would fail again.
_FAILED: dict[tuple[str, str, torch.dtype, int], str] = {}


def triton_or_reference(
    operation: str,
    tensors: Sequence[Tensor | None],
    fast: Callable[[], Result],
    plain: Callable[[], Result],
) -> Result:
    """`fast()`, the Triton kernel of an elementwise operation on these tensors, else `plain()`.

    A GPU without Triton, and a kernel that does not compile or start, are told about once; a CPU
    and training, whose place is the reference, are not. Running out of memory is no reason to fall
    back.
    """
    first = next(x for x in tensors if x is not None)
    if first.device.type == "cpu" or differentiates(*tensors):
        return plain()
    kind = operation, first.device.type, first.dtype, first.shape[-1]
    refusal = _FAILED.get(kind) or triton_refusal(first.device)
    if refusal is None:
        try:
            return fast()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Triton's own are no RuntimeErrors
            refusal = f"it failed: {(str(error) or type(error).__name__).splitlines()[0]}"
            _FAILED[kind] = refusal
    tell_fallback(operation, "reference", (("triton", refusal),))
    return plain()
