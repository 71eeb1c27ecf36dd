"""Finds the kernels that `fused.py` runs on a GPU; without them a GPU runs plain PyTorch."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

MODULE = "visavis.kernels.dit_ops"


class GpuKernels(Protocol):
    """One kernel each; what they compute is said at the functions of the same name in `fused`."""

    def layer_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor: ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def rms_norm_rotate(
        self, x: Tensor, weight: Tensor, eps: float, heads: int, cos: Tensor, sin: Tensor
    ) -> Tensor: ...

    def add_gated(self, x: Tensor, h: Tensor, gate: Tensor | None) -> Tensor: ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor: ...

    def attention_with_lse(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


def _find() -> GpuKernels | None:
    if find_spec("visavis.kernels") is None or find_spec(MODULE) is None:
        return None
    return cast(GpuKernels, import_module(MODULE))


GPU_KERNELS = _find()
