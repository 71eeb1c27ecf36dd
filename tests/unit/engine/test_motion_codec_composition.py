"""The two-layer warp: who covers what, where the mouth may open, how the head moves."""

import functools

import pytest
import torch
from drawn_face import EYES, drawn_portrait
from torch import Tensor

from visavis.engine.codec.composition import WHOLE, Layers, Window, compose
from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.engine.codec.motion_reference import (
    PORTRAIT_REDUCTION,
    MotionReference,
    make_reference,
)
from visavis.engine.codec.spline import evaluate, spline_matrix

MOUTH_LEFT, MOUTH_RIGHT = 100, 156  # the schematic's mouth corners, x


@functools.cache
def reference() -> MotionReference:
    return make_reference(drawn_portrait(), torch.device("cpu"))


def layers_of(codes: Tensor, window: Window = WHOLE) -> Layers:
    known, count = reference(), len(codes)
    return compose(
        known.portrait.expand(count, -1, -1, -1),
        known.seams.expand(count, -1, -1, -1),
        codes,
        window,
        reduction=PORTRAIT_REDUCTION,
    )


def still() -> Tensor:
    return torch.zeros(1, 6, 16, 16)


def lower_layer_down(pixels: float, cells: slice = slice(10, 14)) -> Tensor:
    """The lower layer around the mouth sinks: D's dy is negative (flows are backward)."""
    codes = still()
    codes[:, 5, cells, 6:10] = -pixels / CODE_SCALE[5]
    return codes


def random_codes(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, 16, 16, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_coverages_of_any_code_share_out_every_pixel(seed: int) -> None:
    layers = layers_of(random_codes(seed))
    parts = [layers.cover_upper, layers.cover_lower, layers.gap]
    total = torch.stack(parts).sum(dim=0)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert all(part.min() >= -1e-6 for part in parts)
    assert all(part.max() <= 1 + 1e-6 for part in parts)


@pytest.mark.parametrize("seed", range(3))
def test_no_code_opens_a_gap_away_from_the_mouth(seed: int) -> None:
    codes = random_codes(seed)
    codes[:, :2] = 0  # a still head keeps the mouth where it is
    gap = layers_of(codes).gap[:, 0].amax(dim=0)
    rows, columns = torch.nonzero(gap > 0, as_tuple=True)
    assert len(rows)  # random codes do tear the lips
    assert rows.min() > 140
    assert columns.min() >= MOUTH_LEFT - 9
    assert columns.max() <= MOUTH_RIGHT + 9


def test_the_still_face_has_no_gap() -> None:
    assert layers_of(still()).gap.max() < 1e-3


def test_a_sinking_lower_lip_opens_the_mouth_between_its_corners() -> None:
    gap = layers_of(lower_layer_down(12)).gap[0, 0]
    rows, columns = torch.nonzero(gap > 0.5, as_tuple=True)
    assert gap[186, 128] > 0.9
    assert gap[186, 110:146].min() > 0.5
    assert 8 <= int((gap[:, 128] > 0.5).sum()) <= 13
    assert columns.min() >= MOUTH_LEFT - 4
    assert columns.max() <= MOUTH_RIGHT + 4
    assert rows.min() >= 178
    assert rows.max() <= 196


def test_a_lip_that_rises_onto_the_other_opens_nothing() -> None:
    assert layers_of(lower_layer_down(-6)).gap.max() < 1e-3


def test_an_eyelid_that_sinks_covers_the_eye() -> None:
    open_eyes = layers_of(still()).cover_upper[0, 0]
    codes = still()
    codes[:, 3, 5:8] = -10 / CODE_SCALE[3]  # the upper layer around the eyes
    shut = layers_of(codes).cover_upper[0, 0]
    for x, y in EYES:
        assert open_eyes[y + 3, x] < 0.05
        assert shut[y + 3, x] > 0.95


@pytest.mark.parametrize(("dx", "dy"), [(4, 0), (0, -8), (-4, 4)])
def test_head_flow_shifts_the_picture(dx: int, dy: int) -> None:
    codes = still()
    codes[:, 0], codes[:, 1] = dx / CODE_SCALE[0], dy / CODE_SCALE[1]
    black = torch.zeros(1, 1, 1, 1)
    moved = layers_of(codes).blend(black)
    expected = torch.roll(layers_of(still()).blend(black), (-dy, -dx), dims=(2, 3))
    inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    torch.testing.assert_close(moved[inside], expected[inside], atol=2e-3, rtol=0)


def test_a_window_shows_what_the_whole_shows_there() -> None:
    codes = 0.5 * random_codes(4)
    whole = layers_of(codes)
    part = layers_of(codes, Window(x=76, y=146, width=104, height=88))
    # The window's outermost flows are extended, not interpolated.
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    for name in ("upper", "lower", "cover_upper", "cover_lower", "gap"):
        expected = getattr(whole, name)[:, :, 146:234, 76:180]
        torch.testing.assert_close(getattr(part, name)[inside], expected[inside], atol=1e-3, rtol=0)


def test_sources_follow_the_splines() -> None:
    codes = still()
    codes[:, 2:4] = 0.3 * torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    matrix = spline_matrix(256, 16)
    scale = torch.tensor(CODE_SCALE[2:4])[:, None, None]
    flow = evaluate(codes[:, 2:4] * scale, matrix, matrix)
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    sources = layers_of(codes).sources
    torch.testing.assert_close(sources.head[0], torch.stack([x, y]))
    # Flows are computed on a coarser grid; far less than a pixel is lost.
    assert (sources.upper[0] - torch.stack([x, y]) - flow[0]).abs().max() < 0.2
