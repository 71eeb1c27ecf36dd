"""Our VAE and another in turn: the same outcome, and a word about what is missing."""

import sys
from typing import Any

import pytest
import torch

from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE
from visavis.server.bench_beside import (
    Beside,
    BesideError,
    Stage,
    beside_json,
    beside_lines,
    measure_beside,
)

INPUTS = torch.zeros(1, 16, 2, 2, 2), torch.zeros(1, 3, 5, 16, 16)


def tiny_vae() -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(WanNetwork(WanConfig(base_dim=4, num_res_blocks=1)))


def test_both_give_the_same_and_are_timed() -> None:
    torch.manual_seed(1)
    latents, video = torch.randn(1, 16, 3, 2, 2), torch.rand(1, 3, 5, 16, 16) * 2 - 1
    found = measure_beside(tiny_vae(), latents, video, rounds=1)
    for _, stage in found.stages:
        assert stage.difference < 1e-4
        assert min(stage.ours, stage.theirs) > 0
    assert found.other.startswith("diffusers ")


def test_ratio_says_how_many_times_as_fast_ours_is() -> None:
    stage = Stage(ours=0.5, theirs=1.25, difference=1e-6)
    beside = Beside(other="diffusers 1.2", vae_decode=stage, motion_encode=stage)
    figures: dict[str, Any] = beside_json(beside)
    assert figures["vae_decode"]["ratio"] == 2.5
    assert all("2.50 times as fast as diffusers 1.2" in line for line in beside_lines(beside))


def test_total_is_of_all_stages_and_needs_the_transformer() -> None:
    stage = Stage(ours=0.5, theirs=1.25, difference=1e-6)
    vae = Beside(other="diffusers 1.2", vae_decode=stage, motion_encode=stage)
    assert vae.total is None
    dit = Stage(ours=1.0, theirs=1.5, difference=2e-6)
    whole = Beside(other="diffusers 1.2", vae_decode=stage, motion_encode=stage, dit=dit)
    assert whole.total == Stage(ours=2.0, theirs=4.0, difference=2e-6)
    assert beside_json(whole)["total"]["ratio"] == 2.0


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BesideError, match=r"beside='diffusers'.*visavis\[dev\]"):
        measure_beside(tiny_vae(), *INPUTS, rounds=1)
