"""Offloaded blocks: equal results, one ahead, nothing copied back."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.offload import BlockOffload, DirectTransport
from visavis.engine.weight_memory import OffloadError


@dataclass
class LateTransport:
    """A device whose copies arrive only when they are waited for; until then there is garbage."""

    started: list[int] = field(default_factory=list)
    hosts: list[Tensor] = field(default_factory=list)

    def host(self, size: int) -> Tensor:
        self.hosts.append(torch.empty(size, dtype=torch.uint8))
        return self.hosts[-1]

    def place(self, size: int) -> Tensor:
        return torch.full((size,), 255, dtype=torch.uint8)

    def begin(self, place: Tensor, source: Tensor) -> object:
        place.fill_(255)  # NaN in every float
        index = next(i for i, host in enumerate(self.hosts) if host is source)
        self.started.append(index)
        return place, source

    def finish(self, copy: object) -> None:
        place, source = copy  # type: ignore[misc]
        place[: source.numel()].copy_(source)


def chain(count: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(count)))


@pytest.mark.parametrize(("count", "resident"), [(1, 0), (2, 0), (5, 0), (5, 2), (5, 4)])
@torch.no_grad()
def test_results_are_equal_again_and_again(count: int, resident: int) -> None:
    model = chain(count)
    exact = deepcopy(model)
    BlockOffload(list(model), LateTransport(), resident=resident)
    for seed in range(3):
        x = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(model(x), exact(x))


@torch.no_grad()
def test_the_next_block_is_on_its_way_while_one_computes() -> None:
    transport, seen = LateTransport(), []
    model = chain(4)
    BlockOffload(list(model), transport)
    for index, block in enumerate(model):
        forward = block.forward
        block.forward = lambda x, f=forward, i=index: (  # type: ignore[method-assign, misc]
            f(x),
            seen.append((i, transport.started[-1])),
        )[0]
    model(torch.randn(1, 8))
    model(torch.randn(1, 8))
    # each is copied once a round, and the first of the next round while the last computes
    assert seen == [(0, 1), (1, 2), (2, 3), (3, 0)] * 2
    assert transport.started == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@torch.no_grad()
def test_weights_stay_in_host_memory_unchanged() -> None:
    transport = LateTransport()
    model = chain(4)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    offload = BlockOffload(list(model), transport, resident=1)
    contents = [host.clone() for host in transport.hosts]
    for _ in range(2):
        model(torch.randn(1, 8))
    assert all(torch.equal(a, b) for a, b in zip(transport.hosts, contents, strict=True))
    # a block that has left is found in the host's memory
    assert torch.equal(model[2].weight, before["2.weight"])
    block = contents[0].numel()
    assert (offload.device_bytes, offload.host_bytes) == (3 * block, 3 * block)


@pytest.mark.parametrize("transport", [LateTransport(), DirectTransport()])
@torch.inference_mode()
def test_the_transformer_and_its_prepared_conditions(
    transport: LateTransport | DirectTransport,
) -> None:
    with torch.inference_mode(False):
        torch.manual_seed(0)
        model = FlashTalkDiT(replace(DIT_PRESETS["test"], num_layers=4)).requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    exact = deepcopy(model)
    config = model.config

    def velocity(of: FlashTalkDiT) -> Tensor:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        return of(
            draw(1, config.latent_channels, 3, 8, 8),
            torch.tensor([0.7]),
            draw(1, config.cond_channels, 3, 8, 8),
            draw(1, 9, 5, config.audio_layers, config.audio_channels),
            text=draw(1, config.text_len, config.text_dim),
            image=draw(1, config.image_tokens, config.image_dim),
        )

    BlockOffload(list(model.blocks), transport)
    for _ in range(2):
        assert torch.equal(velocity(model), velocity(exact))


def test_what_cannot_be_offloaded_is_said() -> None:
    with pytest.raises(OffloadError, match="resident=3: of 3 blocks at least one"):
        BlockOffload(list(chain(3)), DirectTransport(), resident=3)
    with pytest.raises(OffloadError, match="GELU has no weights"):
        BlockOffload([nn.GELU()], DirectTransport())
