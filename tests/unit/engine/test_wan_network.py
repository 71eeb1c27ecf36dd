"""The VAE equals diffusers' and itself, however its latents arrive."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from parity_fixtures import assert_within
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.codec.wan_network import WanConfig, WanConfigError, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE

LIMIT = 1e-5
SIZES: dict[str, Any] = {"base_dim": 16, "num_res_blocks": 1}

Twins = tuple[WanVAE, AutoencoderKLWan]


@pytest.fixture(scope="module")
def twins() -> Twins:
    """Ours and diffusers' with the same weights; the norms' gammas are not all one."""
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(**SIZES).eval().requires_grad_(False)
    for name, parameter in theirs.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
    ours = WanNetwork(WanConfig.from_mapping(SIZES))
    ours.load_state_dict(theirs.state_dict())
    return WanVAE(ours), theirs


def denormalised(vae: WanVAE, latents: Tensor) -> Tensor:
    shape = (1, -1, 1, 1, 1)
    return latents * vae.std.view(shape) + vae.mean.view(shape)


def decoded(vae: WanVAE, latents: Tensor) -> Tensor:
    return torch.cat(list(vae.decode(latents)), dim=2)


@pytest.mark.parametrize(("batch", "count"), [(1, 4), (2, 2), (1, 1)])
def test_decode_equals_diffusers(twins: Twins, batch: int, count: int) -> None:
    ours, theirs = twins
    latents = torch.randn(batch, 16, count, 5, 3)
    assert_within(decoded(ours, latents), theirs.decode(denormalised(ours, latents)).sample, LIMIT)


@pytest.mark.parametrize(("batch", "count"), [(1, 13), (2, 5), (1, 1)])
def test_encode_equals_diffusers(twins: Twins, batch: int, count: int) -> None:
    ours, theirs = twins
    video = torch.rand(batch, 3, count, 40, 24) * 2 - 1
    expected = theirs.encode(video).latent_dist.mode()
    assert_within(denormalised(ours, ours.encode(video)), expected, LIMIT)


def test_weights_of_another_dtype_are_derived_anew(twins: Twins) -> None:
    """Kernels derived in one format are not used in another."""
    ours, _ = twins
    latents = torch.randn(1, 16, 3, 4, 4)
    single = decoded(ours, latents)
    exact = WanNetwork(ours.network.config)
    exact.load_state_dict(ours.network.state_dict())
    first = decoded(WanVAE(exact), latents)
    assert torch.equal(first, single)
    double = decoded(WanVAE(exact.double()), latents)
    assert not torch.equal(double, single)
    assert_within(single, double.float(), LIMIT)


def test_bfloat16_stays_near(twins: Twins) -> None:
    ours, _ = twins
    latents = torch.randn(1, 16, 3, 4, 4)
    half = WanNetwork(ours.network.config)
    half.load_state_dict(ours.network.state_dict())
    difference = decoded(WanVAE(half.bfloat16()), latents) - decoded(ours, latents)
    assert difference.square().mean().sqrt() < 0.02


@pytest.mark.parametrize("prefix", [1, 2, 3])
def test_known_latents_may_be_decoded_before_the_others(twins: Twins, prefix: int) -> None:
    ours, _ = twins
    latents = torch.randn(1, 16, 4, 4, 6)
    whole = decoded(ours, latents)
    decoding = ours.begin()
    early = list(decoding.push(latents[:, :, :prefix]))
    other = decoding.fork()
    elsewhere = list(other.push(torch.randn(1, 16, 2, 4, 6)))
    late = list(decoding.push(latents[:, :, prefix:]))
    assert torch.equal(torch.cat(early + late, dim=2), whole)
    assert not torch.equal(elsewhere[0], late[0])


def test_first_frame_takes_a_small_part_of_the_work(twins: Twins) -> None:
    ours, _ = twins
    latents = torch.randn(1, 16, 9, 4, 4)
    with FlopCounterMode(display=False) as first:
        next(ours.decode(latents))
    with FlopCounterMode(display=False) as whole:
        decoded(ours, latents)
    assert first.get_total_flops() < 0.03 * whole.get_total_flops()
    # the first new frame comes after the motion prefix, which is decoded while the chunk denoises
    decoding = ours.begin()
    list(decoding.push(latents[:, :, :2]))
    with FlopCounterMode(display=False) as new:
        next(decoding.push(latents[:, :, 2:]))
    assert new.get_total_flops() < 0.15 * whole.get_total_flops()


def test_filters_take_less_than_six_tenths_of_the_products(twins: Twins) -> None:
    ours, theirs = twins
    latents = torch.randn(1, 16, 9, 4, 4)
    with FlopCounterMode(display=False) as fewer:
        decoded(ours, latents)
    with FlopCounterMode(display=False) as plain:
        theirs.decode(latents)
    assert fewer.get_total_flops() < 0.6 * plain.get_total_flops()


@pytest.mark.parametrize("frames", [2, 4, 0])
def test_other_numbers_of_frames_are_refused(twins: Twins, frames: int) -> None:
    with pytest.raises(ValueError, match="frames"):
        twins[0].encode(torch.zeros(1, 3, frames, 8, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"base_dim": 0},
        {"dim_mult": [1, 2, 4]},
        {"temperal_downsample": [True, True, True]},
        {"z_dim": 4},
        {"base_dim": 3, "dim_mult": [1, 1, 2, 2]},
        {"attn_scales": [1.0]},
        {"is_residual": True},
    ],
)
def test_sizes_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WanConfigError, match=next(reversed(change))):
        WanConfig.from_mapping(change)
