"""The transformer's weights in eight bits, by torchao. Approximate, off unless asked for.

Quantised are the matrix products of every block's self-attention, cross-attention and feed-forward:
nearly all of the weights. What steers them (noise level, norms, head) stays as it is, and so does
the audio attention, whose projections are multiplied into its keys and values once a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.weight_memory import (
    PRECISIONS,
    Precision,
    QuantizationError,
    require_torchao,
)

FIRST_FP8_CAPABILITY = (8, 9)
KEPT = "audio_attention"


@dataclass(frozen=True, slots=True)
class Quantized:
    """How many linear layers were quantised; bytes of all weights before and after."""

    precision: Precision
    layers: int
    bytes_before: int
    bytes_after: int


def check_precision(precision: Precision, device: torch.device) -> None:
    """See that a precision exists and runs on a device.

    Raises:
        QuantizationError: torchao is missing, the name is unknown, or the device has no units for
            it.
    """
    if precision not in PRECISIONS:
        raise QuantizationError(
            f"quantize={precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    require_torchao(precision)
    if precision == "fp8-dynamic" and not _multiplies_fp8(device):
        raise QuantizationError(
            f"quantize=fp8-dynamic: {device} has no fp8 matrix units (compute capability 8.9 or "
            "newer); use fp8, which saves the same memory, or int8"
        )


def quantize(
    model: FlashTalkDiT, precision: Precision, device: torch.device | None = None
) -> Quantized:
    """Quantise a model's weights in place; for inference only, and after its weights are loaded.

    Args:
        device: where it will run, None: where it is. Blocks go there one by one, so that it never
            holds more than one that is not yet quantised.
        precision: `int8` and `fp8` are per output channel, weights alone; `-dynamic` rounds the
            inputs per token besides.

    Raises:
        QuantizationError: torchao is missing, the name is unknown, the device has no units for
            it, or the model is quantised already.
    """
    layers = dict(_linears(model))
    if device is None:
        device = next(model.parameters()).device
    check_precision(precision, device)
    if any(type(layer.weight.data) is not torch.Tensor for layer in layers.values()):
        raise QuantizationError(
            f"quantize={precision}: this model is quantised already; load it anew"
        )
    before = weight_bytes(model)
    model.requires_grad_(False)
    for block in model.blocks:
        block.to(device)
        _apply(block, precision)
    model.to(device)
    return Quantized(precision, len(layers), before, weight_bytes(model))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, quantised ones with their scales."""
    return sum(_bytes(parameter.data) for parameter in model.parameters())


def _bytes(tensor: torch.Tensor) -> int:
    if type(tensor) is torch.Tensor:
        return tensor.numel() * tensor.element_size()
    # a quantised tensor is a wrapper that lists the tensors in it
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return sum(_bytes(getattr(tensor, name)) for name in names)


def _linears(model: FlashTalkDiT) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.blocks.named_modules():
        if _rounds(module, name):
            yield name, module


def _rounds(module: nn.Module, name: str) -> bool:
    """Whether a block's layer is quantised; subclasses of Linear compute in float32 and are not."""
    return type(module) is nn.Linear and KEPT not in name


def _multiplies_fp8(device: torch.device) -> bool:
    return (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST_FP8_CAPABILITY
    )


def _apply(block: nn.Module, precision: Precision) -> None:
    from torchao import quantization as ao  # optional, and slow to import

    configs: dict[Precision, Any] = {
        "int8": ao.Int8WeightOnlyConfig,
        "fp8": ao.Float8WeightOnlyConfig,
        "int8-dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "fp8-dynamic": lambda: ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=ao.PerRow()
        ),
    }
    ao.quantize_(block, configs[precision](), filter_fn=_rounds)
