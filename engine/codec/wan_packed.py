"""2-D convolutions whose kernels lie ready in oneDNN's own blocks; the sums are those of torch.

`F.conv2d` puts a kernel into blocks in every call, which counts where pictures are small.

Letters: T frames, C (I) input and O output channels, H W picture size, h w kernel size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from visavis.engine.codec.wan_filter import innermost

_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def packed(weight_OIhw: Tensor) -> Tensor:
    """The kernel in oneDNN's blocks where it is to be used on a CPU in float32; channels innermost
    otherwise. For `convolve` alone.
    """
    weight = innermost(weight_OIhw)
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not (on_cpu and _HAS_ONEDNN):
        return weight
    # the defaults of torch's binding are not in its types
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    blocks: Tensor = reorder(weight.to_mkldnn())
    return blocks


def convolve(
    x_TCHW: Tensor,
    weight: Tensor,
    bias_O: Tensor | None,
    padding: tuple[int, int],
    stride: int = 1,
) -> Tensor:
    """As `F.conv2d`, to rounding; `weight` comes from `packed`."""
    if not weight.is_mkldnn:
        return F.conv2d(x_TCHW, weight, bias_O, stride, padding)
    outcome: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x_TCHW, weight, bias_O, padding, (stride, stride), (1, 1), 1, "none", [], ""
    )
    return outcome


def _flops(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(conv_flop_count(x, weight, out_shape))


if _HAS_ONEDNN:
    register_flop_formula(torch.ops.mkldnn._convolution_pointwise)(_flops)
