"""The compiled part of the VAE: no breaks, one code for equal shapes, the same pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity_fixtures import assert_within
from torch import Tensor

from visavis.engine.codec.wan_compilation import (
    compile_vae,
    norm_pixels,
    speed_up_codec,
)
from visavis.engine.codec.wan_layers import PixelNorm
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE

SMALL = WanConfig(base_dim=8, num_res_blocks=1)


pytestmark = pytest.mark.usefixtures("fresh_compiler")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Code and shapes of the inputs of every graph; they run as they are."""
    found: list[tuple[Any, ...]] = []
    compiled = torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        found.append((graph.code, *((tuple(x.shape), x.stride()) for x in inputs)))
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda function, **how: compiled(function, backend=backend, **how)
    )
    return found


def random_vae(dtype: torch.dtype = torch.float32) -> WanVAE:
    torch.manual_seed(0)
    network = WanNetwork(SMALL)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.data.uniform_(0.5, 1.5)
    return WanVAE(network.to(dtype))


def decoded(vae: WanVAE, latents: Tensor) -> Tensor:
    return torch.cat(list(vae.decode(latents)), dim=2)


def test_norm_silu_and_write_are_one_graph() -> None:
    room = torch.zeros(4, 7, 8, 16)
    arguments = (torch.randn(2, 5, 6, 16), room[2:, 1:6, 1:7], torch.rand(16))
    explained = torch._dynamo.explain(norm_pixels)(*arguments, silu=True)
    assert (explained.graph_break_count, explained.graph_count) == (0, 1)


@torch.inference_mode()
def test_pictures_and_latents_are_those_of_the_plain_vae(graphs: list[tuple[Any, ...]]) -> None:
    plain, vae = random_vae(), random_vae()
    compile_vae(vae.network)
    latents, video = torch.randn(1, 16, 3, 4, 3), torch.rand(1, 3, 5, 32, 24) * 2 - 1
    assert_within(decoded(vae, latents), decoded(plain, latents), 1e-5)
    assert_within(vae.encode(video), plain.encode(video), 1e-5)
    assert graphs  # it was the compiled function that ran
    assert len(set(graphs)) == len(graphs)  # layers of one shape share their code


@torch.inference_mode()
def test_bfloat16_is_no_further_from_the_truth_than_without(graphs: list[tuple[Any, ...]]) -> None:
    """It rounds once where the plain norm rounds after each of its passes."""
    latents = torch.randn(1, 16, 2, 4, 3)
    truth = decoded(random_vae(), latents)
    plain, vae = random_vae(torch.bfloat16), random_vae(torch.bfloat16)
    compile_vae(vae.network)
    errors = [(decoded(x, latents) - truth).square().mean().sqrt() for x in (vae, plain)]
    assert 0 < errors[0] < 1.1 * errors[1]


@torch.inference_mode()
def test_later_videos_compile_nothing(graphs: list[tuple[Any, ...]]) -> None:
    """Warm-up has seen every shape: another stream's memory lies elsewhere, with equal shapes."""
    vae = random_vae()
    compile_vae(vae.network)
    decoded(vae, torch.randn(1, 16, 3, 4, 3))
    known = len(graphs)
    first, second = vae.begin(), vae.begin()
    for _ in range(3):
        for decoding in (first, second):
            list(decoding.push(torch.randn(1, 16, 1, 4, 3)))
    assert len(graphs) == known


def test_only_a_vae_on_a_gpu_is_sped_up(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = random_vae()
    codec: Any = type("Codec", (), {"vae": vae})()
    norms = [x for x in vae.network.modules() if isinstance(x, PixelNorm)]
    assert norms
    speed_up_codec(codec, compiled=True, recorded=True)
    speed_up_codec(type("Codec", (), {})(), compiled=True, recorded=True)  # type: ignore[arg-type]
    assert all(norm.compiled is None for norm in norms)
    assert not vae.recorded
    vae.device = torch.device("cuda")
    speed_up_codec(codec, compiled=True)
    assert all(norm.compiled is not None for norm in norms)
    assert not vae.recorded
    speed_up_codec(codec, recorded=True)
    assert vae.recorded
