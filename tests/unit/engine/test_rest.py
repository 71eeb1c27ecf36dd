"""A portrait with an open mouth is shown with its lips shut while nobody speaks."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.codec.closing import closing_code, lips_apart, missing_share
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.networks import EncoderConfig, PainterConfig
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.face.layout import FaceLayout, measure_layout
from visavis.engine.plan import CHUNK_LENGTHS

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"
# Portraits of the gallery that smile with teeth, and one that does not.
OPEN, SHUT = ("astronaut", "nori"), "clara"
SILENT_CHUNKS = 3


@cache
def portrait(name: str) -> Portrait:
    return frame_portrait(GALLERY / f"{name}.jpg", landmarker=FaceLandmarker())


@cache
def layout(name: str) -> FaceLayout:
    return measure_layout(portrait(name).image, portrait(name).landmarks)


@cache
def closing(name: str) -> Tensor:
    return torch.from_numpy(closing_code(layout(name)))


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load("embedded")


def silence(engine: AvatarEngine, avatar: Avatar, seed: int) -> Tensor:
    """Codes [N, 6, h, w] of a face that was silent for a chunk already."""
    session = engine.open_session(avatar, seed=seed)
    longest = CHUNK_LENGTHS[-1]
    list(session.generate_idle(longest))
    poses = [
        frame.pose
        for _ in range(SILENT_CHUNKS)
        for frame in session.generate_idle(longest)
        if frame.pose is not None
    ]
    return torch.stack(poses)


@pytest.mark.parametrize("name", OPEN)
def test_the_closing_code_brings_the_lips_of_an_open_mouth_together(name: str) -> None:
    still = lips_apart(torch.zeros(1, 6, 16, 16), layout(name))
    assert float(still) == pytest.approx(layout(name).mouth_gap, abs=0.5)
    assert float(lips_apart(closing(name)[None], layout(name))) <= 0


def test_a_shut_mouth_has_nothing_to_close() -> None:
    assert not closing(SHUT).any()
    assert missing_share(torch.randn(4, 6, 16, 16), closing(SHUT), layout(SHUT)) == 0


@given(share=st.floats(0, 1), name=st.sampled_from(OPEN))
def test_what_is_missing_of_the_closing_code_is_found(share: float, name: str) -> None:
    codes = (1 - share) * closing(name)[None].expand(3, -1, -1, -1)
    missing = missing_share(codes, closing(name), layout(name))
    assert missing == pytest.approx(share, abs=0.05)


@given(name=st.sampled_from(OPEN), amount=st.floats(-4, 4))
def test_what_is_missing_is_a_share_whatever_the_codes_are(name: str, amount: float) -> None:
    codes = amount * closing(name)[None]
    assert 0 <= missing_share(codes, closing(name), layout(name)) <= 1


@pytest.mark.parametrize("name", OPEN)
def test_lips_that_the_model_leaves_apart_in_silence_are_shown_shut(
    engine: AvatarEngine, name: str
) -> None:
    avatar = engine.prepare_avatar(portrait(name))
    codec, reference = engine.pipeline.codec, avatar.conditions.reference
    assert isinstance(codec, MotionCodec)
    codes = silence(engine, avatar, seed=5)
    made = lips_apart(codes, layout(name))
    shown = lips_apart(codec.shown(codes, reference), layout(name))
    shut = float(lips_apart(closing(name)[None], layout(name)))
    assert float(made.median()) > shut + 0.25
    assert abs(float(shown.median()) - shut) < 0.25
    assert float(shown.quantile(0.95)) <= 0


def test_only_what_is_shown_changes_and_at_every_size(engine: AvatarEngine) -> None:
    avatar = engine.prepare_avatar(portrait(OPEN[0]))
    reference = avatar.conditions.reference
    plain = replace(reference, rest=torch.zeros_like(reference.rest))
    without = replace(avatar, conditions=replace(avatar.conditions, reference=plain))
    for size in engine.frame_sizes:
        sessions = [engine.open_session(a, frame_size=size) for a in (avatar, without)]
        pairs = list(zip(*(session.generate_idle(9) for session in sessions), strict=True))
        assert all(torch.equal(a.pose, b.pose) for a, b in pairs)
        assert all((a.pixels != b.pixels).any() for a, b in pairs)


def test_a_portrait_with_a_shut_mouth_is_shown_as_it_is(engine: AvatarEngine) -> None:
    avatar = engine.prepare_avatar(portrait(SHUT))
    assert not avatar.conditions.reference.rest.any()


def test_frames_that_are_encoded_again_are_not_corrected(engine: AvatarEngine) -> None:
    reference = engine.prepare_avatar(portrait(OPEN[0])).conditions.reference
    reencoding = MotionCodec(
        PainterConfig(width=8, depth=1), EncoderConfig(width=8, depth=1), reencode=True
    )
    codes = torch.randn(2, 6, 16, 16)
    assert not reencoding.needs_rest(reference)
    assert torch.equal(reencoding.shown(codes, reference), codes)
