"""The VAE's recorded steps give the plain ones' results to the bit, whatever comes in between."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import pytest
import torch
from graph_stand_ins import tape
from PIL import Image
from torch import Tensor, nn

from visavis.engine import side_stream
from visavis.engine.codec import wan_recording
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_recording import RecordedSteps
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.side_stream import Turns

Captured = list[object]


def random_vae() -> WanVAE:
    """In bfloat16, which takes a GPU's way through the filters on a CPU, too."""
    torch.manual_seed(0)
    return WanVAE(WanNetwork(WanConfig(base_dim=4, num_res_blocks=1)).bfloat16())


@pytest.fixture
def plain() -> WanVAE:
    return random_vae()


@pytest.fixture
def captured() -> Captured:
    """An entry for each recording."""
    return []


@pytest.fixture
def recorded(captured: Captured) -> WanVAE:
    vae = random_vae()
    vae.record(lambda call: (captured.append(call), tape(call))[1])
    return vae


def latents_of(count: int, seed: int = 1) -> Tensor:
    return torch.randn(1, 16, count, 4, 3, generator=torch.Generator().manual_seed(seed))


def decoded(vae: WanVAE, latents: Tensor) -> list[Tensor]:
    return list(vae.decode(latents))


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_videos_one_after_another_take_two_recordings(
    plain: WanVAE, recorded: WanVAE, captured: Captured
) -> None:
    assert recorded.recorded
    assert not plain.recorded
    for seed, count in ((1, 5), (2, 1), (3, 3)):
        latents = latents_of(count, seed)
        assert_equal(decoded(recorded, latents), decoded(plain, latents))
    assert len(captured) == 2  # a video's first latent, and any other
    assert len(decoded(plain, latents_of(5))[-1].unique()) > 100  # there was something to compare


def test_pictures_are_encoded_as_before(
    plain: WanVAE, recorded: WanVAE, captured: Captured
) -> None:
    for count in (5, 1, 13):
        video = torch.rand(1, 3, count, 32, 24) * 2 - 1
        assert torch.equal(recorded.encode(video), plain.encode(video))
    assert len(captured) == 2


def test_every_size_of_picture_has_its_own(
    plain: WanVAE, recorded: WanVAE, captured: Captured
) -> None:
    for size in ((4, 3), (2, 5), (4, 3)):
        latents = torch.randn(2, 16, 3, *size)
        assert_equal(decoded(recorded, latents), decoded(plain, latents))
    assert len(captured) == 4


def test_videos_in_turn_do_not_mix(plain: WanVAE, recorded: WanVAE) -> None:
    """Each displaces the other between two latents."""
    both = [latents_of(4, seed) for seed in (1, 2)]
    decodings = [recorded.begin() for _ in both]
    found: list[list[Tensor]] = [[], []]
    for t in range(4):
        for decoding, latents, frames in zip(decodings, both, found, strict=True):
            frames += decoding.push(latents[:, :, t : t + 1])
    for latents, frames in zip(both, found, strict=True):
        assert_equal(frames, decoded(plain, latents))


def test_a_fork_goes_on_from_where_it_was_made(plain: WanVAE, recorded: WanVAE) -> None:
    latents, other = latents_of(4), latents_of(2, seed=2)
    decoding = recorded.begin()
    early = list(decoding.push(latents[:, :, :2]))
    twin = decoding.fork()
    late = list(decoding.push(latents[:, :, 2:]))  # writes where the twin's memory was
    elsewhere = list(twin.push(other))
    assert_equal(early + late, decoded(plain, latents))
    wanted = decoded(plain, torch.cat([latents[:, :, :2], other], dim=2))
    assert_equal(elsewhere, wanted[2:])


def test_a_video_that_is_given_up_leaves_nothing(plain: WanVAE, recorded: WanVAE) -> None:
    given_up = recorded.begin()
    list(given_up.push(latents_of(2, seed=9)))
    (stream,) = given_up._streams
    assert stream.lent
    del given_up, stream
    gc.collect()
    assert_equal(decoded(recorded, latents_of(3)), decoded(plain, latents_of(3)))


def test_memory_stays_in_place_while_a_video_goes_on(recorded: WanVAE) -> None:
    decoding = recorded.begin()
    list(decoding.push(latents_of(2)))
    (stream,) = decoding._streams
    places = {layer: frames.data_ptr() for layer, frames in stream.memory.items()}
    contents = stream.saved()
    list(decoding.push(latents_of(1, seed=2)))
    assert {layer: frames.data_ptr() for layer, frames in stream.memory.items()} == places
    assert any(not torch.equal(contents[layer], stream.memory[layer]) for layer in places)


def test_a_result_outlives_the_next_replay(recorded: WanVAE) -> None:
    latents = latents_of(3)
    frames = decoded(recorded, latents)
    kept = [part.clone() for part in frames]
    decoded(recorded, latents_of(3, seed=2))
    assert_equal(frames, kept)


def test_recording_anew_goes_on_with_videos_under_way(
    plain: WanVAE, recorded: WanVAE, captured: Captured
) -> None:
    """As after the loss of a group, whose messages are in the old recordings."""
    latents = latents_of(3)
    decoding = recorded.begin()
    early = list(decoding.push(latents[:, :, :2]))
    recorded.record(lambda call: (captured.append(call), tape(call))[1])
    assert_equal(early + list(decoding.push(latents[:, :, 2:])), decoded(plain, latents))
    assert len(captured) == 3


def test_motion_latents_may_be_decoded_beforehand(plain: WanVAE, recorded: WanVAE) -> None:
    picture = Image.linear_gradient("L").convert("RGB")
    shown = []
    for vae, early in ((plain, False), (recorded, True)):
        codec = WanCodec(vae, None, (32, 32), decodes_early=early)
        reference = codec.reference_from_image(picture)
        latents = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(3))
        begun = codec.begin_decode(latents[:, :2])
        shown.append(list(codec.decode(latents, reference, skip_frames=5, begun=begun)))
    for one, other in zip(*shown, strict=True):
        assert torch.equal(one.exact, other.exact)


def test_memory_that_is_replaced_would_be_seen(
    plain: WanVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in reads where the recorded call read, so the tests above can fail."""

    def replace(stream: Any, layer: nn.Module, frames: Tensor) -> None:
        stream.places[layer] = stream.memory[layer] = frames.clone()

    monkeypatch.setattr(wan_recording._Places, "keep", replace)
    vae = random_vae()
    vae.record(tape)
    found, wanted = decoded(vae, latents_of(4)), decoded(plain, latents_of(4))
    assert torch.equal(found[0], wanted[0])
    assert not torch.equal(found[3], wanted[3])


class FakeStream:
    """What `Turns` wants of a stream of a GPU."""

    def __init__(self, name: str, orders: list[Any]) -> None:
        self.name, self.orders = name, orders

    def wait_event(self, event: object) -> None:
        self.orders.append((self.name, "waits for", event))

    def record_event(self) -> str:
        event = f"end on {self.name}"
        self.orders.append((self.name, "records", event))
        return event


def test_a_replay_waits_for_the_last_one_on_another_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[Any] = []
    streams = iter([FakeStream("usual", orders), FakeStream("side", orders)])
    monkeypatch.setattr(side_stream.torch.cuda, "current_stream", lambda _: next(streams))
    turns = Turns(torch.device("cuda"))
    with turns.one():
        orders.append("first")
    with suppress(RuntimeError), turns.one():  # what was ordered before an error counts, too
        orders.append("second")
        raise RuntimeError("no kernel")
    assert orders == [
        "first",
        ("usual", "records", "end on usual"),
        ("side", "waits for", "end on usual"),
        "second",
        ("side", "records", "end on side"),
    ]


def test_steps_that_are_called_directly_are_the_layers_own(plain: WanVAE) -> None:
    assert plain.decode_step is plain.network.decoder
    plain.record(tape)
    assert isinstance(plain.encode_step, RecordedSteps)
