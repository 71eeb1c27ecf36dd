"""How a kernel that takes one row a program is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

WIDEST_ROW = 1 << 15  # elements that a program keeps in registers


class RowWidthError(ValueError):
    """A row that does not fit one program."""


def padded_width(width: int) -> int:
    """The power of two that holds a row.

    Raises:
        RowWidthError: it is wider than a program's registers.
    """
    if width > WIDEST_ROW:
        raise RowWidthError(
            f"width={width}: a program holds {WIDEST_ROW} at most; use the plain reference"
        )
    return 1 << (width - 1).bit_length()


def warps(padded: int) -> int:
    """About 32 elements a thread: enough loads in flight, no spills."""
    return max(1, min(16, padded // 1024))


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be that of the tensor."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
