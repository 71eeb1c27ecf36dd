"""The VAE shared by gloo processes equals the same VAE in one process, at the seams, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gloo_group import run_group
from graph_stand_ins import repeat
from host_waits import NoReads
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.codec.wan_conv import CausalFilter
from visavis.engine.codec.wan_layers import DoublingFilter
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_stream import VideoStream
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.parallel.halo import PictureGrid
from visavis.engine.parallel.halo_vae import HaloVAE
from visavis.engine.parallel.plan import ParallelError

LIMIT = 1e-5
FULL_SIZE = (96, 56)
# FLOPs of one process of eight in the original: its tile with two latents of halo on each side
ORIGINAL_SHARE_OF_8 = 14.0e12


def small_vae() -> WanVAE:
    torch.manual_seed(0)
    network = WanNetwork(WanConfig(base_dim=8, num_res_blocks=1))
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return WanVAE(network)


def inputs(latent_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    height, width = latent_size
    return torch.randn(1, 16, 3, height, width), torch.rand(1, 3, 5, 8 * height, 8 * width) * 2 - 1


def decoded(vae: WanVAE, latents: Tensor) -> Tensor:
    decoding = vae.begin()
    parts = [*decoding.push(latents[:, :, :2]), *decoding.fork().push(latents[:, :, 2:])]
    return torch.cat(parts, dim=2)


def differences(rank: int, cases: list[PictureGrid]) -> dict[str, Any]:
    vae = small_vae()
    found: dict[str, Any] = {"decode": [], "encode": [], "sent": [], "recorded": []}
    for grid in cases:
        latents, video = inputs(grid.size)
        shared = HaloVAE(vae, grid)
        with NoReads():  # no exchange needs values on the host
            together = decoded(shared, latents)
            encoded = shared.encode(video)
        found["decode"].append((together - decoded(vae, latents)).abs().max().item())
        found["sent"].append(shared.tile.sent_bytes)
        found["encode"].append((encoded - vae.encode(video)).abs().max().item())
        shared.record(repeat)
        found["recorded"] += [
            torch.equal(decoded(shared, latents), together),
            torch.equal(shared.encode(video), encoded),
        ]
    return found


@pytest.mark.parametrize(
    ("world", "cases"),
    [
        (2, [PictureGrid((3, 2), (4,)), PictureGrid((3,), (1, 3)), PictureGrid((2,), (2, 2))]),
        (4, [PictureGrid((2, 3), (3, 1)), PictureGrid((1, 1, 2, 1), (3,))]),
    ],
    ids=["two", "four"],
)
def test_shared_equals_single(world: int, cases: list[PictureGrid]) -> None:
    for found in run_group(world, differences, cases):
        assert max(found["decode"]) <= LIMIT
        assert max(found["encode"]) <= LIMIT
        assert min(found["sent"]) > 0
        assert all(found["recorded"])


def messages(rank: int, grid: PictureGrid) -> dict[str, int]:
    """What a decode sends of the tile's borders, and what its convolutions would need, in bfloat16,
    which takes a GPU's way."""
    vae = HaloVAE(WanVAE(small_vae().network.bfloat16()), grid)
    found = {"convolutions": 0, "needed": 0, "gathers": 0}

    def seen(layer: nn.Module, given: tuple[Any, ...]) -> None:
        count, height, width, channels = given[0].shape
        found["convolutions"] += 1
        found["needed"] += count * channels * 2 * (height + width + 1)

    gather = vae.tile.gather

    def counted(tokens: Tensor) -> Tensor:
        found["gathers"] += 1
        return gather(tokens)

    vae.tile.gather = counted  # type: ignore[method-assign]
    for layer in vae.network.decoder.modules():
        if isinstance(layer, (CausalFilter, DoublingFilter)):
            layer.register_forward_pre_hook(seen)
    latents, _ = inputs(grid.size)
    found["latents"] = len(list(vae.decode(latents)))
    return found | {"sent": vae.tile.sent_messages, "bytes": vae.tile.sent_bytes}


def test_borders_are_sent_once_a_convolution_and_keys_gathered_once_a_latent() -> None:
    """Four tiles, each with a neighbour beside and one below or above, and one at the corner."""
    for found in run_group(4, messages, PictureGrid((3, 3), (2, 2))):
        assert found["convolutions"] > 20 * found["latents"]
        assert found["sent"] == 2 * found["convolutions"]
        assert found["gathers"] == found["latents"] == 3
        # The corner goes through the neighbour; the margin beyond the picture's edge goes along.
        assert found["needed"] < found["bytes"] < 1.2 * found["needed"]


class Apart:
    """A border that costs nothing: the tile's own work alone is counted."""

    whole = False

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def fill(self, frames_THWC: Tensor, before: int, after: int) -> None:
        pass

    def gather(self, tokens_TLC: Tensor) -> Tensor:
        return tokens_TLC.new_empty(tokens_TLC.shape[0], self.tokens, tokens_TLC.shape[2])


def decode_flops(latent_size: tuple[int, int], stream: VideoStream, latents: int = 9) -> int:
    with torch.device("meta"):
        network = WanNetwork(WanConfig()).bfloat16().requires_grad_(False)
        features = torch.empty(latents, *latent_size, 16, dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        for t in range(latents):
            network.decoder(features[t : t + 1], stream)
    return int(counter.get_total_flops())


def test_full_size_share_of_eight_processes() -> None:
    height, width = FULL_SIZE
    grid = PictureGrid.best(FULL_SIZE, 8)
    tile = max(grid.heights), max(grid.widths)
    share = decode_flops(tile, VideoStream(Apart(height * width)))
    whole = decode_flops(FULL_SIZE, VideoStream())
    assert share <= 0.86 * ORIGINAL_SHARE_OF_8
    assert share <= 1.03 * whole / 8
    assert decode_flops(FULL_SIZE, VideoStream(), latents=1) <= 0.15 * whole


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12))
def test_tiles_cover_the_picture_once(height: int, width: int, world: int) -> None:
    try:
        grid = PictureGrid.best((height, width), world)
    except ParallelError:
        assert world > min(height, width)
        return
    assert grid.world == world
    covered = torch.zeros(2 * height, 2 * width, dtype=torch.int64)
    for rank in range(world):
        covered[grid.box(rank, 2)] += 1
    assert covered.min() == covered.max() == 1
    assert max(grid.heights) - min(grid.heights) <= 1
    assert max(grid.widths) - min(grid.widths) <= 1


def test_released_size_is_cut_into_square_tiles() -> None:
    assert PictureGrid.best(FULL_SIZE, 8) == PictureGrid((24,) * 4, (28,) * 2)
    assert PictureGrid.best(FULL_SIZE, 5).world == 5


def refusals(rank: int) -> list[str]:
    vae = small_vae()
    messages = []
    for size, grid in (((4, 4), PictureGrid((2, 2), (4,))), ((4, 4), PictureGrid((4,), (4,)))):
        try:
            HaloVAE(vae, grid).encode(torch.zeros(1, 3, 1, *size))
        except ParallelError as error:
            messages.append(str(error))
    return messages


def test_wrong_grids_are_refused() -> None:
    with pytest.raises(ParallelError, match="heights"):
        PictureGrid.split((2, 4), 3, 1)
    with pytest.raises(ParallelError, match="initialised"):
        HaloVAE(small_vae(), PictureGrid((4,), (4,)))
    for picture, group in run_group(2, refusals):
        assert "made for 32x32" in picture
        assert "1 tiles for 2 processes" in group
