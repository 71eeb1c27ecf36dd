"""Blinks are shown whole, once, and with both eyes, whenever the sampler begins one."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.lids import BLINK, Lids, blink_closures, measure_lids
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import pack_codes
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.schematic import schematic_portrait
from visavis.training.codec_data import Puppet
from visavis.training.puppets.controls import CONTROLS, INDEX

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"
PORTRAITS = ("clara", "jun", "schematic")
# What a latent that blinks looks like before it is mended, for a blink of 1.
TOOTH = torch.tensor([0.66, 1.0, 0.55, 0.45])
# Eyes that are open are never quite as open as in the portrait.
REST = -0.01
AMOUNTS = st.sampled_from([0.0, 0.2, 0.8, 1.0])


@cache
def puppet(name: str) -> Puppet:
    portrait: Portrait = schematic_portrait()
    if name != "schematic":
        portrait = frame_portrait(GALLERY / f"{name}.jpg", landmarker=FaceLandmarker())
    return Puppet.of(name, portrait)


def lids(name: str) -> Lids:
    return measure_lids(puppet(name).reference.shown.layout)


def teeth(amounts: list[float]) -> Tensor:
    """Closures [1 + 4 G, 2] of a frame at rest and latents that blink so far."""
    frames = [torch.tensor([REST]), *(REST + amount * TOOTH for amount in amounts)]
    return torch.cat(frames)[:, None].expand(-1, 2)


def blinks(shown: Tensor) -> int:
    """How often eyes shut in closures [N, 2]."""
    shut = shown[:, 0] > 0.5
    return int((shut[1:] & ~shut[:-1]).sum()) + int(shut[0])


@pytest.mark.parametrize("name", PORTRAITS)
def test_how_far_an_eye_is_shut_is_read_off_whatever_else_the_face_does(name: str) -> None:
    rng = np.random.default_rng(1)
    controls = rng.uniform(-0.5, 0.5, (60, len(CONTROLS))).astype(np.float32)
    controls[:, INDEX["jaw"]] = rng.uniform(0, 1, 60)
    both = rng.uniform(0, 1, (60, 2)).astype(np.float32)
    controls[:, [INDEX["blink_l"], INDEX["blink_r"]]] = both
    read = lids(name).closures(torch.from_numpy(puppet(name).basis.codes(controls)))
    assert np.abs(read.numpy() - both).max() < 0.12


@pytest.mark.parametrize("name", PORTRAITS)
def test_each_code_shuts_its_own_eye(name: str) -> None:
    found = lids(name)
    torch.testing.assert_close(found.closures(found.codes), torch.eye(2), atol=0.1, rtol=0)


@pytest.mark.parametrize("latents", [1, 2, 3, 5])
def test_latents_that_shut_the_eyes_again_and_again_are_one_blink(latents: int) -> None:
    shown = blink_closures(teeth([0.0, *[0.9] * latents, 0.0, 0.0]))
    assert blinks(shown) == 1
    blink = shown[5 : 5 + len(BLINK), 0]
    torch.testing.assert_close(blink, torch.tensor(BLINK), atol=0.011, rtol=0)
    assert float(shown[5 + len(BLINK) :].max()) <= 0


def test_half_a_blink_is_none_and_two_that_are_apart_are_two() -> None:
    assert float(blink_closures(teeth([0.0, 0.3, 0.4, 0.0])).max()) <= 0
    assert blinks(blink_closures(teeth([0.9, 0.0, 0.9, 0.0]))) == 2


def test_eyes_that_disagree_stay_open() -> None:
    one = teeth([0.0, 1.0, 1.0, 0.0]).clone()
    one[:, 1] = REST
    assert float(blink_closures(one).max()) <= 0


def test_no_session_begins_with_shut_eyes() -> None:
    """The first latent after the portrait is never shown."""
    first = teeth([1.0, 1.0, 0.0, 0.9]).clone()
    first[0] = 0
    shown = blink_closures(first)
    assert float(shown[:13].max()) <= 0
    assert blinks(shown) == 1


@given(st.lists(AMOUNTS, min_size=4, max_size=24), st.data())
def test_chunks_show_what_one_long_chunk_would(amounts: list[float], data: st.DataObject) -> None:
    closures = teeth(amounts)
    whole = blink_closures(closures)
    shown, given = [], 1
    while given < len(closures):
        latents = data.draw(st.integers(1, (len(closures) - given) // 4))
        begin = max(given - MOTION_FRAMES, 0)
        end = given + 4 * latents
        shown.append(blink_closures(closures[begin:end])[given - begin :])
        given = end
    torch.testing.assert_close(torch.cat(shown), whole[1:])


@given(st.lists(st.floats(-0.5, 1.5), min_size=2, max_size=10))
def test_eyes_shut_alike_and_no_further_than_wholly(amounts: list[float]) -> None:
    shown = blink_closures(teeth(amounts))
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert float(shown.max()) <= 1
    # Wide eyes stay as wide as they are, as long as nothing blinks.
    wide = teeth([-0.3] * len(amounts))
    assert torch.equal(blink_closures(wide), wide)


@pytest.fixture(scope="module")
def codec() -> MotionCodec:
    codec = AvatarEngine.load("embedded").pipeline.codec
    assert isinstance(codec, MotionCodec)
    return codec


def test_a_chunk_is_drawn_with_its_blinks_and_handed_over_without(codec: MotionCodec) -> None:
    face = puppet("clara")
    controls = np.zeros((33, len(CONTROLS)), np.float32)
    controls[9:17, INDEX["blink_l"]] = controls[9:17, INDEX["blink_r"]] = [*TOOTH, *TOOTH]
    codes = torch.from_numpy(face.basis.codes(controls))
    frames = list(codec.decode(pack_codes(codes[None])[0], face.reference, skip_frames=5))
    assert torch.allclose(torch.cat([frame.exact for frame in frames]), codes[5:])
    controls[9:17, INDEX["blink_l"]] = controls[9:17, INDEX["blink_r"]] = BLINK
    right = torch.from_numpy(face.basis.codes(controls))[5:]
    wanted = codec.draw(codec.shown(right, face.reference), face.reference).int()
    drawn = torch.cat([frame.pixels for frame in frames]).int()
    assert (drawn - wanted).abs().float().mean(dim=(1, 2, 3)).max() < 0.2
    assert (drawn[9:17] - drawn[:1]).abs().max() > 60  # the eyes did shut
