"""The picture of the long roll-outs is drawn from figures by name, as a JSON file has them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visavis.training.evaluation.drift import NOTICEABLE, PREFIXES
from visavis.training.evaluation.plots import plot_stability
from visavis.training.evaluation.stability import DISTURBANCES, RECOVERY_CHUNKS


def figures(prefixes: tuple[str, ...]) -> dict[str, float]:
    found = {f"recover_{n}": 0.4 / n for n in RECOVERY_CHUNKS}
    for number, prefix in enumerate(prefixes):
        level = 0.2 + 0.3 * number
        found |= {f"{prefix}drift_{n}": level for n in (1, 10, 100, 1000)}
        found |= {f"{prefix}drift_{factor}_1000": level for factor in NOTICEABLE}
    return found


def drawn(
    path: Path,
    found: dict[str, float],
    intervals: dict[str, tuple[float, float]] | None = None,
    kinds: dict[str, NDArray[np.float64]] | None = None,
) -> NDArray[np.uint8]:
    plot_stability(found, intervals or {}, path, kinds=kinds)
    picture = cv2.imread(str(path))
    assert picture is not None
    return np.asarray(picture, np.uint8)


def colours(picture: NDArray[np.uint8]) -> set[tuple[int, ...]]:
    return set(map(tuple, picture[::2, ::2].reshape(-1, 3).tolist()))


def test_the_deployed_way_alone_can_be_drawn(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "new" / "alone.png", figures(("",)))
    assert picture.shape[1] > 1000
    assert len(colours(picture)) > 10


def test_legends_stand_under_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr("matplotlib.pyplot.close", kept.append)
    drawn(tmp_path / "all.png", figures(tuple(PREFIXES.values())))
    (figure,) = kept
    for axes in figure.axes:
        legend = axes.get_legend()
        assert axes.get_title()
        assert legend is not None
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    lines = figure.axes[0].get_lines()
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == len(lines) == 3


def test_every_way_is_there_though_two_have_the_same_figures(tmp_path: Path) -> None:
    three = figures(tuple(PREFIXES.values()))
    for name in list(three):
        if name.startswith("corrected_"):
            three[name] = three[name.replace("corrected_", "reencoded_")]
    all_three = drawn(tmp_path / "three.png", three)
    two = {name: value for name, value in three.items() if not name.startswith("corrected_")}
    green = (44, 160, 44)  # the third colour of the cycle, as BGR
    assert green in colours(all_three)
    assert green not in colours(drawn(tmp_path / "two.png", two))


def test_intervals_and_kinds_show_where_they_are(tmp_path: Path) -> None:
    found = figures(("",))
    plain = drawn(tmp_path / "plain.png", found)
    banded = drawn(
        tmp_path / "banded.png", found, {n: (0.9 * v, 1.1 * v) for n, v in found.items()}
    )
    assert banded.shape != plain.shape or (banded != plain).any()
    kinds = {name: np.full(len(RECOVERY_CHUNKS), 0.0) for name in DISTURBANCES}
    of_kinds = drawn(tmp_path / "kinds.png", found, kinds=kinds)
    assert of_kinds.shape != plain.shape or (of_kinds != plain).any()
