"""A transformer on its device, its weights held as they should be (`engine.weight_memory`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.offload import BlockOffload, CudaTransport, Transport
from visavis.engine.quantize import check_precision, quantize
from visavis.engine.weight_memory import WeightMemory

logger = logging.getLogger(__name__)


def check_memory(
    memory: WeightMemory, device: torch.device, *, compiled: bool = False, recorded: bool = False
) -> None:
    """All that can be refused before weights are read.

    Raises:
        QuantizationError, OffloadError: as `WeightMemory.check`, and eight-bit products on a
            device without units for them.
    """
    memory.check(str(device), compiled=compiled, recorded=recorded)
    if memory.quantize is not None:
        check_precision(memory.quantize, device)


def vae_format(memory: WeightMemory, dtype: torch.dtype) -> torch.dtype:
    """What a video VAE is computed in beside a transformer in `dtype`."""
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return dtype if memory.vae_dtype is None else formats[memory.vae_dtype]


def load_placed(
    load: Callable[[torch.device], FlashTalkDiT],
    memory: WeightMemory,
    device: torch.device,
    *,
    transport: Callable[[torch.device], Transport] = CudaTransport,
) -> FlashTalkDiT:
    """What `load` reads, on `device`; more than is to stay there never is.

    Weights that will be smaller or elsewhere are read into host memory first.

    Raises:
        OffloadError: fewer blocks than are to be offloaded.
    """
    if memory.plain:
        return load(device)
    model = load(torch.device("cpu"))
    if memory.quantize is not None:
        report = quantize(model, memory.quantize, device)
        logger.info(
            "%s: %d layers, %.2f GB of weights became %.2f",
            report.precision,
            report.layers,
            report.bytes_before / 1e9,
            report.bytes_after / 1e9,
        )
        return model
    memory.check_blocks(len(model.blocks))
    blocks = list(model.blocks)
    moved = BlockOffload(blocks, transport(device), resident=len(blocks) - memory.offload)
    _move_rest(model, device)
    logger.info(
        "offloaded %d of %d blocks: %.2f GB in host memory, %.2f GB of blocks on %s",
        memory.offload,
        len(blocks),
        moved.host_bytes / 1e9,
        moved.device_bytes / 1e9,
        device,
    )
    return model


def _move_rest(model: FlashTalkDiT, device: torch.device) -> None:
    """All but the blocks, whose weights are where `BlockOffload` put them."""
    for name, child in model.named_children():
        if name != "blocks":
            child.to(device)
    own: dict[str, nn.Parameter] = dict(model.named_parameters(recurse=False))
    assert not own  # the model's weights are all in its parts
