"""Eight-bit weights: which layers, how much smaller, how near."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.quantize import quantize, weight_bytes
from visavis.engine.weight_memory import QuantizationError

pytest.importorskip("torchao", reason="the extra gpu is not installed")


def model_of(dtype: torch.dtype = torch.float32) -> FlashTalkDiT:
    torch.manual_seed(0)
    model = FlashTalkDiT(replace(DIT_PRESETS["test"], dim=128, ffn_dim=256))
    for name, parameter in model.named_parameters():
        # zero at the start of training: nothing would come out
        if "modulation" in name or name.startswith("head"):
            nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).requires_grad_(False).eval()


@torch.inference_mode()
def velocity(model: FlashTalkDiT) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    config = model.config
    dtype = next(model.parameters()).dtype
    return model(
        draw(1, config.latent_channels, 3, 8, 8).to(dtype),
        torch.tensor([0.7]),
        draw(1, config.cond_channels, 3, 8, 8).to(dtype),
        draw(1, 9, 5, config.audio_layers, config.audio_channels).to(dtype),
        text=draw(1, config.text_len, config.text_dim).to(dtype),
        image=draw(1, config.image_tokens, config.image_dim).to(dtype),
    ).float()


@pytest.mark.parametrize(
    ("precision", "error"), [("int8", 0.02), ("fp8", 0.08), ("int8-dynamic", 0.05)]
)
def test_quantised_weights_are_smaller_and_near(precision: str, error: float) -> None:
    model = model_of(torch.bfloat16)
    exact = velocity(model)
    report = quantize(model, precision)  # type: ignore[arg-type]
    rounded = velocity(model)
    assert 0 < float((rounded - exact).norm() / exact.norm()) < error
    # self-attention 4, cross-attention 6, feed-forward 2 of each of two blocks
    assert report.layers == 24
    assert report.bytes_after == weight_bytes(model)
    halved = sum(
        layer.weight.numel()
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and name.startswith("blocks.") and "audio" not in name
    )
    saved = report.bytes_before - report.bytes_after
    assert 0.9 * halved < saved < halved


def test_what_steers_and_what_is_folded_stays_exact() -> None:
    model = model_of()
    before = {name: p.clone() for name, p in model.named_parameters()}
    quantize(model, "int8")
    changed = {
        name
        for name, p in model.named_parameters()
        if type(p.data) is not torch.Tensor or not torch.equal(p, before[name])
    }
    assert changed
    assert all(name.startswith("blocks.") for name in changed)
    assert not any("audio" in n or "norm" in n or "modulation" in n for n in changed)


def test_what_cannot_be_done_is_said() -> None:
    model = model_of()
    with pytest.raises(QuantizationError, match="'int3' is unknown; choose one of int8"):
        quantize(model, "int3")  # type: ignore[arg-type]
    with pytest.raises(QuantizationError, match="cpu has no fp8 matrix units"):
        quantize(model, "fp8-dynamic")
    quantize(model, "int8")
    with pytest.raises(QuantizationError, match="quantised already; load it anew"):
        quantize(model, "fp8")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis.engine.weight_memory.find_spec", lambda name: None)
    with pytest.raises(QuantizationError, match=r"install visavis\[gpu\]"):
        quantize(model_of(), "int8")
