"""Formulas of eight-bit and offloaded weights against the tensors and the order of copies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dit_counting import meta_model, meta_step, run_step
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.costs import ChunkShape, parameters, process_cost
from visavis.engine.dit.weight_costs import (
    block_bytes,
    offloaded_bytes,
    quantized_bytes,
    rounded_products,
    rounded_weights,
    rounding_bytes,
    transfer_wait_s,
)
from visavis.engine.offload import BlockOffload, DirectTransport
from visavis.engine.quantize import quantize, weight_bytes
from visavis.engine.weight_memory import Precision

RELEASED = DIT_PRESETS["flashtalk-14b"]
CHUNK = ChunkShape(latent_size=(96, 56))


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["flashtalk-14b", "embedded", "test"])
def test_quantised_bytes_are_those_of_the_tensors(name: str, precision: Precision) -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    model = meta_model(DIT_PRESETS[name])
    quantize(model, precision)
    assert quantized_bytes(DIT_PRESETS[name], precision) == weight_bytes(model)


def test_most_of_the_released_weights_are_rounded() -> None:
    assert rounded_weights(RELEASED) / parameters(RELEASED) > 0.85


class MetaTransport(DirectTransport):
    """Sizes without memory."""

    def host(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device="meta")

    place = host


@pytest.mark.parametrize("offload", [1, 2, 3, 40])
def test_offloaded_bytes_are_those_of_the_places(offload: int) -> None:
    model = meta_model(RELEASED)
    rest = weight_bytes(model) - weight_bytes(model.blocks)
    blocks = list(model.blocks)
    moved = BlockOffload(blocks, MetaTransport(), resident=len(blocks) - offload)
    # a single block gets two places, too
    wanted = offloaded_bytes(RELEASED, max(offload, BlockOffload.PLACES))
    if offload == 1:
        wanted += block_bytes(RELEASED)
    assert rest + moved.device_bytes == pytest.approx(wanted, rel=1e-4)
    assert moved.host_bytes == pytest.approx(offload * block_bytes(RELEASED), rel=1e-4)


@torch.no_grad()
def test_products_in_eight_bits_are_those_of_the_rounded_layers() -> None:
    """Each rounded layer's weights times the rows that go through it, as seen on meta tensors."""
    config = replace(DIT_PRESETS["test"], num_layers=3)
    shape = ChunkShape(latent_size=(16, 16), motion_slots=2)
    model = meta_model(config)
    counted = 0

    def count(module: torch.nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal counted
        assert isinstance(module, torch.nn.Linear)
        counted += 2 * args[0].numel() * module.out_features

    inputs = meta_step(model, shape.frames, shape.latent_size, 5)
    audio = model.prepare_audio(inputs[3], latent_size=shape.latent_size)
    for name, module in model.blocks.named_modules():
        if type(module) is torch.nn.Linear and "audio" not in name:
            module.register_forward_hook(count)
    run_step(model, inputs, audio, shape.motion_slots)
    assert rounded_products(config, shape) == counted
    assert rounded_products(config, shape) < process_cost(config, shape).products


def test_rounding_moves_less_than_it_saves_in_products() -> None:
    dynamic = rounding_bytes(RELEASED, CHUNK, "fp8-dynamic")
    weights = rounding_bytes(RELEASED, CHUNK, "fp8")
    assert weights == pytest.approx(3 * 0.8 * rounded_weights(RELEASED), rel=0.1)
    assert dynamic == 40 * 12_096 * (7 * 5120 + 13_824) * 3


def simulated_wait_s(blocks: int, offload: int, compute_s: float, copy_s: float) -> float:
    """What `BlockOffload` orders, with a clock: steady state of one step."""
    resident, copied = blocks - offload, 0.0
    moving = list(range(resident, blocks))
    now, copy_free, step_start = 0.0, 0.0, 0.0
    arrived = {moving[0]: copy_s, moving[1]: 2 * copy_s} if offload > 1 else {moving[0]: copy_s}
    held = list(arrived)
    for _ in range(5):
        step_start = now
        for index in range(blocks):
            if index >= resident:
                now = max(now, arrived[index])
                following = index + 1 if index + 1 < blocks else moving[0]
                if following not in held:
                    held = [index, following]
                    copied = max(now, copy_free) + copy_s
                    copy_free = arrived[following] = copied
            now += compute_s
    return now - step_start - blocks * compute_s


@settings(deadline=None)
@given(
    blocks=st.integers(3, 12),
    data=st.data(),
    compute=st.integers(1, 20),
    copy=st.integers(1, 100),
)
def test_waiting_is_what_the_order_of_copies_gives(
    blocks: int, data: st.DataObject, compute: int, copy: int
) -> None:
    offload = data.draw(st.integers(1, blocks))
    waited, _ = transfer_wait_s(
        blocks=blocks, offload=offload, compute_s=compute, copy_s=copy, once_compute_s=compute
    )
    assert waited == pytest.approx(simulated_wait_s(blocks, offload, compute, copy))
