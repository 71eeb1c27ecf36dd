"""The transformer's weights in eight bits, by torchao. Approximate, off unless asked for.

Quantised are the matrix products of every block's self-attention, cross-attention and feed-forward:
nearly all of the weights. What steers them (noise level, norms, head) stays as it is, and so does
the audio attention, whose projections are multiplied into its keys and values once a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import nn

from visavis.engine.dit.model import FlashTalkDiT

Precision = Literal["int8", "fp8", "int8-dynamic", "fp8-dynamic"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# `dynamic` rounds what comes in, too, and multiplies in eight bits: faster where there are units
# for it. The others save memory alone and multiply in the dtype of what comes in.
FIRST_FP8_CAPABILITY = (8, 9)
KEPT = "audio_attention"


class QuantizationError(ValueError):
    """Weights that cannot be quantised as asked, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """How many linear layers were quantised; bytes of all weights before and after."""

    precision: Precision
    layers: int
    bytes_before: int
    bytes_after: int


def quantize(model: FlashTalkDiT, precision: Precision) -> Quantized:
    """Quantise a model's weights in place; for inference only, and after its weights are loaded.

    Args:
        model: on the device where it will run.
        precision: `int8` and `fp8` are per output channel, weights alone; `-dynamic` rounds the
            inputs per token besides.

    Raises:
        QuantizationError: torchao is missing, the name is unknown, the device has no units for
            it, or the model is quantised already.
    """
    if precision not in PRECISIONS:
        raise QuantizationError(
            f"precision={precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    if find_spec("torchao") is None:
        raise QuantizationError(
            f"precision={precision}: needs torchao, which is missing; install visavis[gpu]"
        )
    layers = dict(_linears(model))
    if any(type(layer.weight.data) is not torch.Tensor for layer in layers.values()):
        raise QuantizationError(
            f"precision={precision}: this model is quantised already; load it anew"
        )
    device = next(iter(layers.values())).weight.device
    if precision == "fp8-dynamic" and not _multiplies_fp8(device):
        raise QuantizationError(
            f"precision=fp8-dynamic: {device} has no fp8 matrix units (compute capability 8.9 or "
            "newer); use fp8, which saves the same memory, or int8"
        )
    before = weight_bytes(model)
    _apply(model, set(layers), precision)
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
    """Names in the model and layers; subclasses, which compute in float32, are not among them."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and name.startswith("blocks.") and KEPT not in name:
            yield name, module


def _multiplies_fp8(device: torch.device) -> bool:
    return (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= FIRST_FP8_CAPABILITY
    )


def _apply(model: FlashTalkDiT, names: set[str], precision: Precision) -> None:
    from torchao import quantization as ao  # optional, and slow to import

    configs: dict[Precision, Any] = {
        "int8": ao.Int8WeightOnlyConfig,
        "fp8": ao.Float8WeightOnlyConfig,
        "int8-dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "fp8-dynamic": lambda: ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=ao.PerRow()
        ),
    }
    model.requires_grad_(False)
    ao.quantize_(model, configs[precision](), filter_fn=lambda _, name: name in names)
