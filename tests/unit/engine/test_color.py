"""Colour transfer and picture fitting by their laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visavis.engine.color import RGB_TO_XYZ, WHITE_D65, ColorMatcher, lab_to_rgb, rgb_to_lab
from visavis.engine.image import cover_size, fit_image, fit_tensor, to_signed


def picture(seed: int, frames: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, 20, 16, generator=draw) * 1.2 - 0.6


def test_lab_of_known_colours() -> None:
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    expected = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]).double()
    torch.testing.assert_close(rgb_to_lab(rgb), expected, atol=0.02, rtol=0)


def test_lab_round_trip() -> None:
    rgb = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-3, rtol=0)


def test_colours_outside_the_gamut_are_cut_in_rgb_alone() -> None:
    """A strong yellow has a negative Z; cutting that off in Lab would shift red and green."""
    lab = torch.tensor([22.6836, 22.6204, 77.0686], dtype=torch.float64)
    expected = torch.tensor([0.386385, 0.144773, 0.0], dtype=torch.float64)
    torch.testing.assert_close(lab_to_rgb(lab), expected, atol=1e-5, rtol=0)


def test_video_takes_the_references_statistics() -> None:
    reference, video = picture(0, 1)[0, :, 0], picture(1)
    matched = ColorMatcher(reference)(video)
    lab = rgb_to_lab(((matched + 1) / 2).movedim(1, -1))
    wanted = rgb_to_lab(((reference + 1) / 2).movedim(0, -1))
    torch.testing.assert_close(lab.mean((2, 3))[0, 1], wanted.mean((0, 1)), atol=0.3, rtol=0)


def test_reference_stays_itself_and_frames_are_independent() -> None:
    video = picture(2)
    matcher = ColorMatcher(video[0, :, 1])
    matched = matcher(video)
    torch.testing.assert_close(matched[:, :, 1], video[:, :, 1], atol=1e-3, rtol=0)
    torch.testing.assert_close(matcher(video[:, :, 2:]), matched[:, :, 2:])


def test_zero_strength_changes_nothing_and_others_are_refused() -> None:
    video, matcher = picture(3), ColorMatcher(picture(4)[0, :, 0])
    assert matcher(video, 0.0) is video
    with pytest.raises(ValueError, match="strength"):
        matcher(video, 1.5)


@settings(deadline=None)
@given(*[st.integers(1, 400)] * 4)
def test_covering_size_covers(height: int, width: int, rows: int, columns: int) -> None:
    scaled = cover_size(height, width, (rows, columns))
    assert scaled[0] >= rows
    assert scaled[1] >= columns


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (7, 7), (32, 24)])
def test_image_fit_has_the_size_and_keeps_the_centre(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[size[0] // 2 - 1 : size[0] // 2 + 2, size[1] // 2 - 1 : size[1] // 2 + 2] = 255
    fitted = fit_image(Image.fromarray(pixels), (32, 24))
    assert fitted.shape == (3, 32, 24)
    assert fitted[:, 16, 12].min() > 100
    assert fit_tensor(torch.from_numpy(pixels).permute(2, 0, 1), (32, 24)).shape == (3, 32, 24)


def test_grey_levels_span_minus_one_to_one() -> None:
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_curves_are_the_standards() -> None:
    """Over all of RGB, thresholds included: the formulas with their two cases, pixel by pixel."""
    steps = torch.linspace(0, 1, 24, dtype=torch.float64)
    rgb = torch.cartesian_prod(steps, steps, steps)
    rgb = torch.cat([rgb, rgb * 0.04, torch.full((1, 3), 0.04045, dtype=torch.float64)])
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(RGB_TO_XYZ, dtype=torch.float64)
    xyz = linear @ matrix.T / torch.tensor(WHITE_D65, dtype=torch.float64)
    f = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(-1)
    expected = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)
    torch.testing.assert_close(rgb_to_lab(rgb), expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(lab_to_rgb(expected), rgb, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matching_leaves_its_input_alone(dtype: torch.dtype) -> None:
    video = picture(5).to(dtype)
    before = video.clone()
    matched = ColorMatcher(picture(6)[0, :, 0])(video)
    assert matched.dtype == dtype
    assert torch.equal(video, before)
    double = ColorMatcher(picture(6)[0, :, 0].double())(video.double())
    torch.testing.assert_close(matched.double(), double, atol=5e-5, rtol=0)


@pytest.mark.parametrize("size", [(26, 20), (7, 5), (64, 64)])
def test_flat_frames_take_the_references_mean(size: tuple[int, int]) -> None:
    colors = torch.tensor([[0.3, -0.2, 0.7], [-1, -1, -1], [0.1, 0.1, 0.1], [1, 1, 1]])
    video = colors.T[None, :, :, None, None].expand(-1, -1, -1, *size)
    matched = ColorMatcher(picture(7)[0, :, 0])(video.contiguous())
    spread = matched.flatten(3).amax(-1) - matched.flatten(3).amin(-1)
    assert spread.max() < 1e-5
    torch.testing.assert_close(matched[:, :, :1].expand_as(matched), matched, atol=1e-4, rtol=0)
