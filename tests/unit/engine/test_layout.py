"""A portrait's seams and layout latents."""

import numpy as np
import pytest
from drawn_face import EYES, MOUTH_ROW, drawn_portrait

from visavis.engine.face.framing import Portrait
from visavis.engine.face.layout import FaceLayout, layout_latents, measure_layout

MOUTH_X = 128


def layout_of(portrait: Portrait) -> FaceLayout:
    return measure_layout(portrait.image, portrait.landmarks)


def test_a_shut_mouth_has_one_line_and_no_gap() -> None:
    layout = layout_of(drawn_portrait())
    assert layout.mouth_gap == 0
    assert np.array_equal(layout.lip_upper, layout.lip_lower)


def test_an_open_mouth_has_two_lines() -> None:
    layout = layout_of(drawn_portrait(opening=12))
    assert layout.mouth_gap == pytest.approx(12, abs=1)
    assert layout.lip_lower[MOUTH_X] - layout.lip_upper[MOUTH_X] == pytest.approx(12, abs=0.5)
    assert (layout.lip_lower >= layout.lip_upper).all()


@pytest.mark.parametrize("below", [-3, -1, 2, 3])
def test_the_seam_of_a_shut_mouth_follows_the_dark_line(below: int) -> None:
    layout = layout_of(drawn_portrait(line_below=below))
    middle = layout.lip_upper[110:146]
    assert np.abs(middle - round(MOUTH_ROW + below)).max() < 0.8


def test_the_seam_stays_with_the_landmarks_past_the_corners() -> None:
    drawn, plain = (layout_of(drawn_portrait(line_below=below)) for below in (3, 0))
    for columns in (slice(0, 100), slice(157, 256)):
        assert np.array_equal(drawn.lip_upper[columns], plain.lip_upper[columns])


def test_seams_tell_the_layers_apart_by_sign() -> None:
    upper, lower, *_ = layout_of(drawn_portrait(opening=12)).seams
    row = round(MOUTH_ROW)
    for distance in (upper, lower):
        assert distance[row - 8, MOUTH_X] < 0  # upper lip
        assert distance[row + 20, MOUTH_X] > 0  # lower lip
        for x, y in EYES:
            assert distance[y - 12, x] < 0  # lid and brow
            assert distance[y + 4, x] > 0  # eyeball
    assert upper[row + 6, MOUTH_X] > 0  # between the lips neither layer has skin
    assert lower[row + 6, MOUTH_X] < 0


def test_a_gap_may_open_at_the_mouth_alone() -> None:
    gap = layout_of(drawn_portrait()).seams[4]
    assert gap[round(MOUTH_ROW), MOUTH_X] == 1
    assert not gap[:150].any()
    assert not gap[:, :92].any()
    assert not gap[:, 166:].any()


def test_the_face_tears_between_corners_and_is_whole_elsewhere() -> None:
    seams = layout_of(drawn_portrait()).seams
    to_upper, from_lower = seams[2:4]
    row = round(MOUTH_ROW)
    assert to_upper[row, MOUTH_X] == from_lower[row, MOUTH_X] == 0
    # Outside, both sources are the same: what one is given the other is not denied.
    for x in (20, 60, 200, 240):
        assert to_upper[row, x] + from_lower[row, x] == pytest.approx(1, abs=1e-5)


def test_layout_latents_have_unit_range() -> None:
    for opening in (0, 12):
        latents = layout_latents(layout_of(drawn_portrait(opening=opening)))
        assert latents.shape == (16, 16, 16)
        assert latents.dtype == np.float32
        assert np.abs(latents).max() < 2
        assert np.isfinite(latents).all()


def test_mouth_and_eyes_stand_out_in_their_own_maps() -> None:
    latents = layout_latents(layout_of(drawn_portrait()))
    row, column = np.unravel_index(latents[2].argmax(), (16, 16))
    assert (row, column) in {(11, 7), (11, 8)}
    for channel, (x, y) in zip((7, 8), EYES, strict=True):
        row, column = np.unravel_index(latents[channel].argmax(), (16, 16))
        assert abs(row * 16 + 8 - y) < 12
        assert abs(column * 16 + 8 - x) < 12


def test_the_latents_say_how_far_the_mouth_is_open() -> None:
    shut, wide = (layout_latents(layout_of(drawn_portrait(opening=o)))[6] for o in (0, 12))
    assert not shut.any()
    assert wide.max() > 1
