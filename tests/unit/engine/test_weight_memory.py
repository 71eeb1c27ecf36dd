"""Eight-bit and offloaded weights: what goes together, and a transformer that is held so."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.offload import DirectTransport
from visavis.engine.placing import load_placed
from visavis.engine.quantize import weight_bytes
from visavis.engine.weight_memory import (
    OffloadError,
    QuantizationError,
    VaeFormatError,
    WeightMemory,
)

CPU = torch.device("cpu")


def model_of() -> FlashTalkDiT:
    torch.manual_seed(0)
    model = FlashTalkDiT(replace(DIT_PRESETS["test"], dim=128, ffn_dim=256, num_layers=4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def velocity(model: FlashTalkDiT) -> Tensor:
    config, generator = model.config, torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return model(
        draw(1, config.latent_channels, 3, 8, 8),
        torch.tensor([0.7]),
        draw(1, config.cond_channels, 3, 8, 8),
        draw(1, 9, 5, config.audio_layers, config.audio_channels),
        text=draw(1, config.text_len, config.text_dim),
        image=draw(1, config.image_tokens, config.image_dim),
    )


@pytest.mark.parametrize("offload", [1, 3, 4])
def test_an_offloaded_transformer_computes_the_same(offload: int) -> None:
    exact = model_of()
    asked = []

    def load(place: torch.device) -> FlashTalkDiT:
        asked.append(place)
        return deepcopy(exact)

    model = load_placed(
        load, WeightMemory(offload=offload), CPU, transport=lambda _: DirectTransport()
    )
    assert asked == [CPU]  # read into host memory, whatever the device is
    assert torch.equal(velocity(model), velocity(exact))


def test_more_blocks_than_there_are_cannot_be_offloaded() -> None:
    with pytest.raises(OffloadError, match="offload=5: the model has 4 blocks; offload at most"):
        load_placed(
            lambda _: model_of(),
            WeightMemory(offload=5),
            CPU,
            transport=lambda _: DirectTransport(),
        )


def test_a_quantised_transformer_is_smaller_and_near() -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    exact = model_of()
    model = load_placed(lambda _: deepcopy(exact), WeightMemory(quantize="int8"), CPU)
    assert weight_bytes(model) < 0.6 * weight_bytes(exact)
    wanted = velocity(exact)
    assert 0 < float((velocity(model) - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"quantize": "int3"}, QuantizationError, "quantize='int3' is unknown; choose one of int8"),
        ({"offload": -1}, OffloadError, "offload=-1: a number of blocks"),
        ({"offload": 2, "quantize": "int8"}, OffloadError, "leave one of the two out"),
        (
            {"vae_dtype": "float16"},
            VaeFormatError,
            "vae_dtype='float16': must be one of float32, b",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        WeightMemory(**settings)


@pytest.mark.parametrize(
    ("device", "switches", "message"),
    [
        ("cpu", {}, "offload=2 with device=cpu: .* leave it out"),
        ("cuda", {"compiled": True}, "offload=2 with compiled"),
        ("cuda:1", {"recorded": True}, "offload=2 with recorded"),
    ],
)
def test_offloading_is_refused_where_weights_cannot_move(
    device: str, switches: dict[str, bool], message: str
) -> None:
    with pytest.raises(OffloadError, match=message):
        WeightMemory(offload=2).check(device, **switches)


def test_plain_weights_go_with_everything() -> None:
    WeightMemory().check("cpu", compiled=True, recorded=True)
    WeightMemory(offload=2).check("cuda")


def test_a_missing_library_is_named_before_weights_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visavis.engine.weight_memory.find_spec", lambda name: None)
    with pytest.raises(QuantizationError, match=r"install visavis\[gpu\]"):
        WeightMemory(quantize="fp8").check("cpu")
