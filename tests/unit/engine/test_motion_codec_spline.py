"""Spline surfaces: what the matrices compute, and that a window is part of the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.codec.spline import evaluate, point_weights, spline_matrix


def bump(t: float) -> float:
    """The cardinal cubic B-spline, by its truncated powers."""
    coefficients = (1, -4, 6, -4, 1)
    shifted = (max(t + 2 - k, 0.0) ** 3 for k in range(5))
    return sum(c * s for c, s in zip(coefficients, shifted, strict=True)) / 6


def direct(control: np.ndarray, position: float, cell: float) -> float:  # type: ignore[type-arg]
    """The curve's value by summing every control point's bump; the outermost points repeat."""
    u = (position + 0.5) / cell - 0.5
    first = int(np.floor(u)) - 3
    return sum(
        float(control[min(max(j, 0), len(control) - 1)]) * bump(u - j)
        for j in range(first, first + 8)
    )


def test_weights_sum_to_one_everywhere() -> None:
    torch.testing.assert_close(spline_matrix(256, 16).sum(dim=1), torch.ones(256))
    assert spline_matrix(256, 16).min() >= 0


@given(position=st.floats(0, 255), seed=st.integers(0, 99))
def test_matrix_agrees_with_the_sum_of_bumps(position: float, seed: int) -> None:
    control = np.random.default_rng(seed).normal(size=16)
    row = spline_matrix(1, 16, position, 1.0, 256)
    value = float(row.double() @ torch.from_numpy(control))
    assert value == pytest.approx(direct(control, position, 16), abs=1e-5)


def test_a_window_is_a_crop_of_the_whole() -> None:
    grid = torch.randn(2, 6, 16, 16)
    whole = evaluate(grid, spline_matrix(256, 16), spline_matrix(256, 16))
    rows, columns = (
        spline_matrix(88, 16, 120.0, 1.0, 256),
        spline_matrix(104, 16, 70.0, 1.0, 256),
    )
    torch.testing.assert_close(
        evaluate(grid, rows, columns), whole[:, :, 120:208, 70:174], atol=1e-5, rtol=0
    )
    every_second = spline_matrix(128, 16, 0.0, 2.0, 256)
    torch.testing.assert_close(
        evaluate(grid, every_second, every_second), whole[:, :, ::2, ::2], atol=1e-5, rtol=0
    )


def test_point_weights_evaluate_the_same_surface() -> None:
    grid = torch.randn(16, 16, dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0], [100.0, 37.0], [255.0, 254.0]], dtype=torch.float64)
    surface = evaluate(grid[None, None].float(), spline_matrix(256, 16), spline_matrix(256, 16))[
        0, 0
    ]
    values = point_weights(points, (16, 16), 16.0) @ grid.flatten()
    expected = torch.stack([surface[int(y), int(x)] for x, y in points])
    torch.testing.assert_close(values.float(), expected, atol=1e-5, rtol=0)
