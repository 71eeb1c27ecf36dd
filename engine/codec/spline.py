"""Uniform cubic B-spline surfaces on the control grid of the embedded motion codec.

Legend: h w control grid, H W pixels. A control point i sits at the centre of its cell; beyond the
border the outermost points repeat.
"""

from functools import lru_cache

import torch
from torch import Tensor


def _axis_matrix(positions: Tensor, cells: int, cell_size: float) -> Tensor:
    """Weights [N, cells] of the control points at N pixel positions (centres are integers)."""
    u = (positions.double() + 0.5) / cell_size - 0.5
    base = torch.floor(u)
    f = u - base
    weights = torch.stack(
        [
            (1 - f) ** 3 / 6,
            (3 * f**3 - 6 * f**2 + 4) / 6,
            (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6,
            f**3 / 6,
        ],
        dim=-1,
    )
    index = (base[:, None].long() + torch.arange(-1, 3)).clamp(0, cells - 1)
    matrix = torch.zeros(len(positions), cells, dtype=torch.float64)
    return matrix.scatter_add_(1, index, weights)


@lru_cache(maxsize=64)
def spline_matrix(
    pixels: int, cells: int, start: float = 0.0, step: float = 1.0, full: int = 0
) -> Tensor:
    """Evaluation matrix [pixels, cells], float32, for pixel positions start + step * n.

    `full` is the number of pixels that the cells span (default: `pixels`); a window of a larger
    frame passes its offset as `start` and the frame's size as `full`.
    """
    positions = start + step * torch.arange(pixels, dtype=torch.float64)
    return _axis_matrix(positions, cells, (full or pixels) / cells).float()


def evaluate(grid_NChw: Tensor, rows_Hh: Tensor, columns_Ww: Tensor) -> Tensor:
    """Surfaces [N, C, H, W] of control grids [N, C, h, w]."""
    return rows_Hh @ grid_NChw @ columns_Ww.mT


def point_weights(points_N2: Tensor, cells: tuple[int, int], cell_size: float) -> Tensor:
    """Weights [N, h*w], float64, of every control point at N points (x, y) in pixels."""
    h, w = cells
    columns = _axis_matrix(points_N2[:, 0], w, cell_size)
    rows = _axis_matrix(points_N2[:, 1], h, cell_size)
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(points_N2), h * w)
