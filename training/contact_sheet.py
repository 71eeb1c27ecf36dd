"""Contact sheets of what a model makes while it trains: faces, and the curves behind them."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from visavis.training.codec_data import Puppet

DPI = 70
WIDTH_INCHES = 18.0


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: curves [N] of truth and sample by name, and a picture [H, W, 3] of faces."""

    curves: Mapping[str, tuple[Tensor, Tensor]]
    faces: NDArray[np.uint8] | None = None


@torch.no_grad()
def face_strip(puppet: Puppet, codes_N6hw: Tensor) -> NDArray[np.uint8]:
    """The portrait moved by each of the codes, side by side [256, 256 N, 3]."""
    frames = puppet.render(codes_N6hw.float()).permute(2, 0, 3, 1).flatten(1, 2)
    strip: NDArray[np.uint8] = (frames.numpy() * 255).round().astype(np.uint8)
    return strip


def draw_sheet(
    rows: Sequence[Row], path: Path, title: str, *, borders: Sequence[int] = ()
) -> NDArray[np.uint8]:
    """Write the sheet as PNG and return it [H, W, 3]; truth is black, samples are red.

    `borders` are frames at which chunks begin.
    """
    heights = [height for row in rows for height in (1.6, _faces_height(row))]
    columns = max(len(row.curves) for row in rows)
    size = (WIDTH_INCHES, sum(heights) + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2 * len(rows), columns, height_ratios=heights)
    for number, row in enumerate(rows):
        for column, (name, (truth, sample)) in enumerate(row.curves.items()):
            axes = figure.add_subplot(grid[2 * number, column])
            axes.plot(truth, "k", lw=1)
            axes.plot(sample, "r", lw=1)
            axes.set_title(name, fontsize=7)
            for border in borders:
                axes.axvline(border, color="0.85", zorder=0)
        if row.faces is not None:
            axes = figure.add_subplot(grid[2 * number + 1, :])
            axes.imshow(row.faces)
            axes.axis("off")
    figure.suptitle("\n".join(textwrap.wrap(title, 200)), fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = drawn[..., :3].copy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def _faces_height(row: Row) -> float:
    """Inches that a row's faces take at the sheet's whole width; a hair where there are none."""
    if row.faces is None:
        return 0.01
    height, width = row.faces.shape[:2]
    return WIDTH_INCHES * float(height) / float(width)
