"""Photo puppets: controls, what the fitted bases move, and the mouth's inside."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import Layers, compose
from visavis.engine.codec.interior import mouth_look, paint_interior
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION
from visavis.engine.face import mesh
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.face.layout import FaceLayout, measure_layout
from visavis.engine.schematic import schematic_portrait
from visavis.training.codec_data import Puppet, random_controls
from visavis.training.puppets.basis import JAW_GAP, WEIGHTS, control_weights, fit_basis
from visavis.training.puppets.controls import CONTROLS, INDEX, lip_gap

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"
OPENING = 10.0
CONTROL = st.lists(st.floats(-1, 1, width=32), min_size=15, max_size=15)


@functools.cache
def portrait(name: str) -> Portrait:
    if name == "photo":
        return frame_portrait(GALLERY / "clara.jpg", landmarker=FaceLandmarker())
    plain = schematic_portrait()
    if name == "schematic":
        return plain
    landmarks = plain.landmarks.copy()
    x = np.linspace(-1, 1, len(mesh.LIP_INNER_LOWER))
    for contour in (mesh.LIP_INNER_LOWER, mesh.LIP_OUTER_LOWER):
        landmarks[list(contour), 1] += OPENING * (1 - x**2)
    return Portrait(plain.image, landmarks)


@functools.cache
def layout(name: str) -> FaceLayout:
    return measure_layout(portrait(name).image, portrait(name).landmarks)


@functools.cache
def puppet(name: str) -> Puppet:
    return Puppet.of(name, portrait(name))


def controls(**values: float) -> NDArray[np.float32]:
    row = np.zeros((1, len(CONTROLS)), np.float32)
    for name, value in values.items():
        row[0, INDEX[name]] = value
    return row


def layers(name: str, codes: Tensor) -> Layers:
    reference = puppet(name).reference
    count = len(codes)
    return compose(
        reference.portrait.expand(count, -1, -1, -1),
        reference.seams.expand(count, -1, -1, -1),
        codes,
        reduction=PORTRAIT_REDUCTION,
    )


def posed(name: str, **values: float) -> Layers:
    return layers(name, torch.from_numpy(puppet(name).basis.codes(controls(**values))))


def seen_at(positions: Tensor, x: float, y: float) -> NDArray[np.float32]:
    """Which source pixel (x, y) the output pixel nearest to (x, y) shows."""
    result: NDArray[np.float32] = positions[0, :, round(y), round(x)].numpy()
    return result


def test_signed_controls_that_act_differently_each_way_are_split() -> None:
    weights = control_weights(controls(lower_lip=-0.5, wide=0.25, jaw=1, smile=-1))[0]
    named = dict(zip(WEIGHTS, weights.tolist(), strict=True))
    assert (named["lower_lip"], named["lower_lip_up"]) == (0, 0.5)
    assert (named["wide"], named["narrow"]) == (0.25, 0)
    assert (named["jaw"], named["smile"], named["brow"]) == (1, -1, 0)


@given(CONTROL)
def test_split_weights_are_never_both_set_and_add_up(row: list[float]) -> None:
    given_row = np.array([row], np.float32)
    named = dict(zip(WEIGHTS, control_weights(given_row)[0], strict=True))
    for control, positive, negative in (
        ("lower_lip", "lower_lip", "lower_lip_up"),
        ("wide", "wide", "narrow"),
    ):
        assert min(named[positive], named[negative]) == 0
        assert named[positive] - named[negative] == given_row[0, INDEX[control]]


@given(CONTROL)
def test_lip_gap_is_never_negative_and_grows_with_the_jaw(row: list[float]) -> None:
    shut = np.array([row], np.float32)
    shut[0, INDEX["jaw"]] = 0
    wide = shut.copy()
    wide[0, INDEX["jaw"]] = 1
    assert lip_gap(shut)[0] >= 0
    assert lip_gap(wide)[0] >= lip_gap(shut)[0]


def test_lip_gap_of_plain_poses() -> None:
    assert lip_gap(controls())[0] == 0
    assert lip_gap(controls(jaw=1))[0] == pytest.approx(1)
    assert lip_gap(controls(press=1))[0] == 0


@pytest.mark.parametrize("name", ["schematic", "photo"])
def test_a_shut_portrait_at_rest_has_the_zero_code(name: str) -> None:
    assert layout(name).mouth_gap == 0
    assert not puppet(name).basis.rest.any()
    assert not puppet(name).basis.codes(controls()).any()


@pytest.mark.parametrize("name", ["schematic", "photo"])
@pytest.mark.parametrize("jaw", [0.5, 1.0])
def test_the_jaw_takes_the_lower_lip_down_as_far_as_promised(name: str, jaw: float) -> None:
    face, pose = layout(name), posed(name, jaw=jaw)
    x = face.mouth_centre[0]
    seam = float(face.lip_lower[round(x)])
    drop = jaw * JAW_GAP * face.mouth_width
    shown = seen_at(pose.sources.lower, x, seam + drop)
    assert np.hypot(shown[0] - x, shown[1] - seam) < 2.0
    gap = float(pose.gap[0, 0, :, round(x)].sum())
    assert gap == pytest.approx(drop, abs=2.5)


@pytest.mark.parametrize("name", ["schematic", "photo"])
def test_the_jaw_leaves_nose_eyes_and_brows_alone(name: str) -> None:
    points, pose = layout(name).landmarks, posed(name, jaw=1)
    still = (mesh.NOSE_TIP, *mesh.EYE_LEFT_UPPER, *mesh.EYE_RIGHT_LOWER, *mesh.BROW_LEFT_UPPER)
    for x, y in points[list(still)]:
        covered = pose.cover_upper[0, 0, round(y), round(x)] > 0.5
        source = pose.sources.upper if covered else pose.sources.lower
        assert np.hypot(*(seen_at(source, x, y) - (round(x), round(y)))) < 1.0
    assert pose.gap[0, 0, : int(points[mesh.NOSE_TIP, 1])].max() == 0


@pytest.mark.parametrize("name", ["schematic", "photo"])
def test_a_blink_brings_the_upper_lid_to_the_lower_one(name: str) -> None:
    points = layout(name).landmarks
    awake, asleep = posed(name), posed(name, blink_l=1, blink_r=1)
    for top, bottom in (
        (mesh.EYE_LEFT_UPPER, mesh.EYE_LEFT_LOWER),
        (mesh.EYE_RIGHT_UPPER, mesh.EYE_RIGHT_LOWER),
    ):
        x, low = points[bottom[4]]
        height = low - points[top[4], 1]
        middle, edge = round(low - height / 2), round(low - 1.5)
        assert awake.cover_upper[0, 0, middle, round(x)] < 0.5
        assert asleep.cover_upper[0, 0, middle, round(x)] > 0.95
        assert asleep.cover_upper[0, 0, edge, round(x)] > 0.5


def test_one_eye_blinks_alone() -> None:
    points = layout("photo").landmarks
    pose = posed("photo", blink_l=1)
    x, y = points[[mesh.EYE_RIGHT_UPPER[4], mesh.EYE_RIGHT_LOWER[4]]].mean(axis=0)
    assert pose.cover_upper[0, 0, round(y), round(x)] < 0.5


def test_an_open_portrait_is_shut_at_rest() -> None:
    assert layout("open").mouth_gap > 5
    x = round(layout("open").mouth_centre[0])
    shown_open = layers("open", torch.zeros(1, 6, 16, 16)).gap[0, 0, :, x].sum()
    assert shown_open == pytest.approx(OPENING, abs=1)
    at_rest = posed("open").gap[0, 0]
    assert at_rest[:, x].sum() < 1.0
    assert at_rest.sum(dim=0).max() < 2.0


@pytest.mark.parametrize("axis", [("tx", 0), ("ty", 1)])
def test_the_head_moves_to_the_right_and_down_where_its_controls_are_positive(
    axis: tuple[str, int],
) -> None:
    control, direction = axis
    x, y = layout("photo").landmarks[mesh.NOSE_TIP]
    pose = posed("photo", **{control: 1.0})
    assert seen_at(pose.sources.head, x, y)[direction] < (round(x), round(y))[direction] - 2
    for shoulder_x in (4, 251):
        shoulder = seen_at(pose.sources.head, shoulder_x, 251)
        np.testing.assert_allclose(shoulder, (shoulder_x, 251), atol=0.3)
    moved = np.abs(seen_at(pose.sources.head, 4, 4) - (4, 4)).max()
    assert moved < 1.6  # the background fades out of the motion


@pytest.mark.parametrize("name", ["schematic", "photo", "open"])
def test_the_inside_of_the_mouth_has_colours_in_range(name: str) -> None:
    made = puppet(name)
    codes = torch.from_numpy(made.basis.codes(random_controls(np.random.default_rng(0), 3)))
    inside = paint_interior(made.look, made.reference.portrait, layers(name, codes))
    assert inside.shape == (3, 3, 256, 256)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert torch.isfinite(inside).all()


def test_the_inside_of_a_mouth_is_darker_than_its_teeth() -> None:
    pose = posed("photo", jaw=1)
    made = puppet("photo")
    inside = paint_interior(made.look, made.reference.portrait, pose)[0]
    seen = inside[:, pose.gap[0, 0] > 0.9].mean(dim=0)
    assert seen.min() < 0.25
    assert made.look.teeth.mean() > made.look.flesh.mean()


def test_a_mouth_that_shows_its_inside_keeps_it() -> None:
    image = portrait("open").image.copy()
    image[:] = (10, 200, 30)
    look = mouth_look(image, layout("open"))
    still = torch.zeros(1, 6, 16, 16)
    green = torch.tensor([10, 200, 30])[None, :, None, None].expand(1, 3, 256, 256) / 255
    inside = paint_interior(look, green, layers("open", still))[0]
    middle = round(float(layout("open").lip_upper[128]) + OPENING / 2)
    torch.testing.assert_close(inside[:, middle, 128], green[0, :, 0, 0], atol=0.02, rtol=0)


def test_fitting_is_deterministic() -> None:
    again = fit_basis(layout("schematic"))
    assert np.array_equal(again.basis, puppet("schematic").basis.basis)
    assert again.basis.shape == (17, 6, 16, 16)
