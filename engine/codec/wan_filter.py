"""Convolutions' weights, what is derived from them once, and the layouts torch wants.

Letters: T frames, H W picture size, C (I) input and O output channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernels = list[tuple[Tensor, Tensor | None]]


class Filter(nn.Module):
    """Weight and bias of a convolution, and what is derived from them once.

    Initialised as torch does its convolutions (uniform, He et al. with a = sqrt(5)).
    """

    def __init__(self, in_channels: int, out_channels: int, *taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *taps))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self._derived: dict[object, Kernels] = {}
        self._source: tuple[Tensor, ...] = ()  # in a tuple, lest it count as a parameter
        reach = 1 / math.sqrt(in_channels * math.prod(taps))
        nn.init.uniform_(self.weight, -reach, reach)
        nn.init.uniform_(self.bias, -reach, reach)

    def kernels(self, kind: object) -> Kernels:
        """Kernels of a kind, computed when first asked for and when the weight was exchanged."""
        if not self._source or self._source[0] is not self.weight:
            self._derived, self._source = {}, (self.weight,)
        if kind not in self._derived:
            self._derived[kind] = self._derive(kind)
        return self._derived[kind]

    def _derive(self, kind: object) -> Kernels:
        raise LookupError(f"{type(self).__name__} has no kernels of kind {kind!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles derive anew: what lies in oneDNN's blocks can be neither."""
        return {**self.__dict__, "_derived": {}, "_source": ()}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._source = ()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._source = ()
        super()._load_from_state_dict(*args, **kwargs)


class PointwiseFilter(Filter):
    """A 1x1 or 1x1x1 convolution: one matrix product."""

    def forward(self, x_THWC: Tensor) -> Tensor:
        return F.linear(x_THWC, self.weight.flatten(1), self.bias)


def channels_first(x_THWC: Tensor) -> Tensor:
    """The same memory as torch's convolutions name it, [T, C, H, W] in channels_last."""
    return x_THWC.permute(0, 3, 1, 2)


def pictures(x_TCHW: Tensor) -> Tensor:
    """[T, C, H, W] in channels_last -> [T, H, W, C], contiguous."""
    return x_TCHW.permute(0, 2, 3, 1).contiguous()


def innermost(weight_OIHW: Tensor) -> Tensor:
    return weight_OIHW.contiguous(memory_format=torch.channels_last)
