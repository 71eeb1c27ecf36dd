"""Kernels in oneDNN's blocks give torch's sums, can be copied with their model, and are counted."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_packed import convolve, packed
from visavis.engine.codec.wan_vae import WanVAE


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "stride"),
    [((1, 1), (3, 3), (1, 1), 1), ((7, 5), (1, 3), (0, 1), 1), ((9, 9), (3, 3), (0, 0), 2)],
)
@pytest.mark.parametrize("channels", [3, 32])
def test_sums_are_those_of_torch(
    size: tuple[int, int],
    kernel: tuple[int, int],
    padding: tuple[int, int],
    stride: int,
    channels: int,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(16, channels, *kernel) / 8, torch.randn(16)
    found = convolve(x, packed(weight), bias, padding, stride)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_packed_products_are_counted() -> None:
    x, weight = torch.randn(1, 8, 6, 6), torch.randn(16, 8, 3, 3)
    with FlopCounterMode(display=False) as counter:
        convolve(x, packed(weight), None, (1, 1))
    assert counter.get_total_flops() == 2 * 9 * 8 * 16 * 36


@pytest.mark.parametrize(
    ("dtype", "device"),
    [(torch.bfloat16, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta")],
)
def test_elsewhere_kernels_stay_as_they_are(dtype: torch.dtype, device: str) -> None:
    weight = torch.randn(4, 4, 3, 3).to(device, dtype)
    kept = packed(weight)
    assert not kept.is_mkldnn
    assert kept.dtype == dtype
    found = convolve(torch.zeros(1, 4, 5, 5, dtype=dtype, device=device), kept, None, (1, 1))
    assert found.shape == (1, 4, 5, 5)


def test_used_vae_can_be_copied_and_saved() -> None:
    torch.manual_seed(0)
    network = WanNetwork(WanConfig(base_dim=4, num_res_blocks=1))
    video = torch.rand(1, 3, 5, 16, 16)
    before = WanVAE(network).encode(video)
    assert torch.equal(WanVAE(copy.deepcopy(network)).encode(video), before)
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(WanVAE(again).encode(video), before)
