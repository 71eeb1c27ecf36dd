"""Lips that teeth part, told by their colours."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.engine.face.lip_edges import parted_lips

SIZE = 256
LEFT, RIGHT = 100, 156
SKIN, LIP, TOOTH, DARK = (205, 165, 140), (170, 70, 75), (225, 215, 195), (60, 20, 25)
LINE = np.full(SIZE, 160, np.float32)


def mouth(
    *, gap: int, inside: tuple[int, int, int], shift: int = 0, middle: float = 1.0
) -> NDArray[np.uint8]:
    """Lips of 6 px above and below a gap whose middle is `shift` px under LINE's, in the mouth's
    `middle` share of columns."""
    image = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    centre = 160 + shift
    image[centre - gap // 2 - 6 : centre + gap - gap // 2 + 6, LEFT:RIGHT] = LIP
    half = round(middle * (RIGHT - LEFT) / 2)
    columns = slice((LEFT + RIGHT) // 2 - half, (LEFT + RIGHT) // 2 + half)
    image[centre - gap // 2 : centre + gap - gap // 2, columns] = inside
    return image


@pytest.mark.parametrize("shift", [-2, 0, 2])
@pytest.mark.parametrize("gap", [4, 6])
def test_edges_stand_where_lips_end_and_teeth_begin(gap: int, shift: int) -> None:
    lines = parted_lips(mouth(gap=gap, inside=TOOTH, shift=shift), LINE, LEFT, RIGHT)
    assert lines is not None
    upper, lower = lines
    middle = slice(LEFT + 14, RIGHT - 14)
    # A row's centre is at its number: the first row of teeth ends half a pixel before it.
    np.testing.assert_allclose(upper[middle], 160 + shift - gap // 2 - 0.5, atol=0.7)
    np.testing.assert_allclose(lower[middle], 160 + shift + gap - gap // 2 - 0.5, atol=0.7)


def test_the_lines_meet_in_the_corners_and_are_the_meshs_beyond() -> None:
    lines = parted_lips(mouth(gap=6, inside=TOOTH), LINE, LEFT, RIGHT)
    assert lines is not None
    upper, lower = lines
    outside = np.r_[0 : LEFT + 1, RIGHT:SIZE]
    np.testing.assert_array_equal(upper[outside], LINE[outside])
    np.testing.assert_array_equal(lower[outside], LINE[outside])
    assert (lower >= upper).all()
    assert lower[LEFT + 1] - upper[LEFT + 1] < 3


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (mouth(gap=0, inside=TOOTH), LEFT, RIGHT),  # shut
        (mouth(gap=2, inside=(200, 110, 115)), LEFT, RIGHT),  # gloss: bright, and still red
        (mouth(gap=5, inside=TOOTH, middle=0.3), LEFT, RIGHT),  # two teeth in the middle
        (mouth(gap=6, inside=TOOTH), 120, 126),  # a face that is turned away
        (np.full((SIZE, SIZE, 3), 128, np.uint8), LEFT, RIGHT),  # a picture without colours
    ],
    ids=["shut", "gloss", "few", "narrow", "grey"],
)
def test_a_mouth_that_shows_no_row_of_teeth_is_none_of_its_business(
    image: NDArray[np.uint8], left: int, right: int
) -> None:
    assert parted_lips(image, LINE, left, right) is None
