"""The evaluation's measures on made-up series, frames and landmarks."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from visavis.training.evaluation.bootstrap import Measured
from visavis.training.evaluation.report import (
    BARS,
    Bar,
    RunRecord,
    print_table,
    write_json,
    write_sheet,
)
from visavis.training.evaluation.statistics import (
    boundary_jump_ratio,
    frame_differences,
    mean_psnr,
    pearson,
    sharpness,
    synchrony,
)
from visavis.training.frame_judge import PYTHON_VARIABLE, JudgeError
from visavis.training.landmarks import (
    IndependentLandmarker,
    eye_opening,
    face_found,
    mouth_opening,
)


def series(seed: int = 0, length: int = 200) -> NDArray[np.float64]:
    """A wandering opening."""
    noise = np.random.default_rng(seed).normal(size=length + 4)
    return np.convolve(noise, np.ones(5) / 5, mode="valid")


def test_correlation_is_one_for_a_line_and_zero_for_a_constant() -> None:
    a = series()
    assert pearson(a, 3 * a + 1) == pytest.approx(1)
    assert pearson(a, -a) == pytest.approx(-1)
    assert pearson(a, np.full(200, 0.3)) == 0
    assert pearson(a, series(1)) == pytest.approx(np.corrcoef(a, series(1))[0, 1])


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_a_mouth_that_is_late_has_a_positive_lag(late: int) -> None:
    pairs = []
    for seed in range(3):
        true = series(seed)
        pairs.append((np.roll(true, late)[5:-5], true[5:-5]))
    found = synchrony(pairs)
    assert found.lag_frames == late
    assert found.r == pytest.approx(1)


def test_synchrony_takes_one_lag_for_all_clips() -> None:
    a, b = series(1), series(2)
    found = synchrony([(np.roll(a, 4), a), (np.roll(b, -4), b)])
    assert found.r < 0.8


def film(steps: list[int]) -> NDArray[np.uint8]:
    """Grey frames [N, 8, 8, 3] whose levels differ by the steps."""
    levels = np.cumsum([20, *steps])
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 8, 8, 3)).astype(np.uint8)


def test_a_jump_at_the_border_is_measured_against_the_usual_change() -> None:
    frames = film([2, 2, 6, 2, 2])
    assert frame_differences(frames).tolist() == [2, 2, 6, 2, 2]
    assert boundary_jump_ratio(frame_differences(frames), [3]) == pytest.approx(3)
    assert boundary_jump_ratio(frame_differences(frames), [2]) == pytest.approx(1)
    assert np.isnan(boundary_jump_ratio(frame_differences(frames), []))


def test_a_darker_frame_differs_as_much_as_a_brighter_one() -> None:
    assert frame_differences(film([5, -5])).tolist() == [5, 5]


def test_blurring_lowers_sharpness() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    soft = np.asarray(cv2.GaussianBlur(sharp[0], (0, 0), 1.5))[None]
    values = sharpness(np.concatenate([sharp, soft, np.full_like(sharp, 90)]))
    assert values[0] > 3 * values[1] > 0
    assert values[2] == 0


def test_psnr_counts_the_weighted_pixels_alone() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    frames = truth + 0.1
    frames[..., :2] = 1.0
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., 2:] = 1
    assert mean_psnr(frames, truth, weight) == pytest.approx(20, abs=1e-3)
    assert mean_psnr(truth, truth, weight) == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (Bar("", least=0.6), 0.6, True),
        (Bar("", least=0.6), 0.59, False),
        (Bar("", most=1.5), 1.6, False),
        (Bar("", least=-1, most=1), -2, False),
        (Bar("", least=-1, most=1), 1, True),
        (Bar(""), 1e9, True),
    ],
)
def test_bars(bar: Bar, value: float, met: bool) -> None:
    assert bar.met(value) is met


def test_the_table_says_met_missed_or_nothing() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100)
    print_table({"sync_r": 0.85, "psnr_outside_db": 20.0, "blinks_per_minute": 17.0}, console)
    rows = {row.split()[1]: row for row in text.getvalue().splitlines() if "│" in row}
    assert "met" in rows["sync_r"]
    assert "missed" in rows["psnr_outside_db"]
    assert ">= 36" in rows["psnr_outside_db"]
    assert "met" not in rows["blinks_per_minute"]


def test_a_bar_inside_the_interval_is_met_but_not_surely() -> None:
    bar = Bar("", least=0.8)
    assert bar.verdict(0.9, (0.85, 0.95)) == "met"
    assert bar.verdict(0.9, (0.75, 0.95)) == "met, interval crosses"
    assert bar.verdict(0.7, (0.6, 0.95)) == "missed"
    assert bar.verdict(float("nan")) == "missed"
    assert bar.verdict(0.9) == "met"
    assert Bar("", least=-1, most=1).verdict(0, (-1, 1.5)) == "met, interval crosses"
    assert Bar("").verdict(0.9, (0.0, 2.0)) == ""


def test_the_table_shows_whether_the_interval_crosses_the_bar() -> None:
    text = io.StringIO()
    figures = {"sync_r": 0.85, "recover_5": 0.08, "silence_opening": 0.01}
    print_table(
        figures,
        Console(file=text, width=120),
        intervals={"sync_r": (0.83, 0.87), "recover_5": (0.05, 0.11)},
        clusters={"sync_r": 17, "recover_5": 4, "silence_opening": 2},
    )
    rows = {row.split()[1]: row for row in text.getvalue().splitlines() if "│" in row}
    assert rows["sync_r"].rstrip(" │").endswith(" met")
    assert "met, interval crosses" in rows["recover_5"]
    assert "n = 2" in rows["silence_opening"]
    assert "n =" not in rows["sync_r"]


def test_no_pop_at_an_onset_is_held_against_the_truths_own_jump() -> None:
    bar = BARS["onset_jump_over_truth"]
    assert bar.met(1.0)
    assert not bar.met(1.5)
    assert not BARS["recordings_pause_opening"].met(0.127)


def test_every_bar_can_be_printed() -> None:
    print_table(dict.fromkeys(BARS, 0.5), Console(file=io.StringIO()))


def test_figures_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    found = Measured(
        figures={"sync_r": 0.123456},
        intervals={"sync_r": (0.1, 0.200001)},
        clusters={"sync_r": 6},
        seeds={1: {"sync_r": 0.1}, 2: {"sync_r": 0.15}},
    )
    write_json(found, path, RunRecord(2, 3, {"talking": 61.23}))
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "sync_r": 0.1235,
        "intervals": {"sync_r": [0.1, 0.2]},
        "n": {"sync_r": 6},
        "seeds": {"1": {"sync_r": 0.1}, "2": {"sync_r": 0.15}},
        "run": {"steps": 2, "seeds": 3, "chunk_frames": 33, "seconds": {"talking": 61.2}},
    }


def test_a_sheet_has_a_row_for_every_film_and_keeps_colours(tmp_path: Path) -> None:
    red = np.zeros((6, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    write_sheet([red, red[:4]], tmp_path / "sheet.png", every=2)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (16, 16, 3)  # cut to the shorter row
    assert sheet[0, 0].tolist() == [0, 0, 255]


def test_every_picture_of_a_sheet_has_its_caption_above_it(tmp_path: Path) -> None:
    grey = np.full((3, 64, 200, 3), 90, np.uint8)
    write_sheet([grey, grey], tmp_path / "sheet.png", captions=[["one", "two", ""], ["", "", "x"]])
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    height = sheet.shape[0] // 2
    assert sheet.shape == (2 * height, 600, 3)
    bands = [row[: height - 64] for row in (sheet[:height], sheet[height:])]
    dark = [[(band[:, at : at + 200] < 128).any() for at in (0, 200, 400)] for band in bands]
    assert dark == [[True, True, False], [False, False, True]]
    assert (sheet[height - 64 : height] == 90).all()


def landmarks(gaps: list[float]) -> NDArray[np.float32]:
    """Faces [N, 478, 2] with eyes 100 px apart, open by 0.3 of their width; NaN gap: no face."""
    points = np.zeros((len(gaps), 478, 2), np.float32)
    points[:, 263, 0] = 100
    for top, low in ((13, 14), (312, 317), (82, 87)):
        points[:, top, 1] = 50
        points[:, low, 1] = 50 + np.array(gaps)
    for (top, low), (left, right) in (((159, 145), (33, 133)), ((386, 374), (362, 263))):
        points[:, right, 0] = points[:, left, 0] + 20 if left == 33 else 100
        points[:, left, 0] = points[:, right, 0] - 20
        points[:, low, 1] = points[:, top, 1] + 6
    points[:, 33, 0] = 0
    points[:, 133, 0] = 20
    points[np.isnan(gaps)] = np.nan
    return points


def test_mouth_opening_is_relative_to_the_eyes() -> None:
    np.testing.assert_allclose(mouth_opening(landmarks([0, 5, 10])), [0, 0.05, 0.1], rtol=1e-6)


def test_eye_opening_is_height_over_width() -> None:
    np.testing.assert_allclose(eye_opening(landmarks([0, 0])), 0.3, rtol=1e-6)


def test_frames_without_a_face_are_bridged() -> None:
    nan = float("nan")
    points = landmarks([nan, 4, nan, nan, 10, nan])
    assert face_found(points) == pytest.approx(2 / 6)
    expected = np.array([4, 4, 6, 8, 10, 10]) / 100
    np.testing.assert_allclose(mouth_opening(points), expected, rtol=1e-5)
    np.testing.assert_allclose(eye_opening(points), 0.3, rtol=1e-5)


def test_without_any_face_openings_are_zero() -> None:
    points = landmarks([float("nan")] * 3)
    assert face_found(points) == 0
    assert mouth_opening(points).tolist() == [0, 0, 0]


def test_a_missing_detector_environment_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(JudgeError, match=r"make eval.*VISAVIS_LANDMARK_PYTHON"):
        IndependentLandmarker()


def test_a_detector_that_dies_is_reported(tmp_path: Path) -> None:
    dead = tmp_path / "python"
    dead.write_text("#!/bin/sh\nhead -c 1 > /dev/null\nexit 3\n")
    dead.chmod(0o755)
    with (
        IndependentLandmarker(dead) as landmarker,
        pytest.raises(JudgeError, match=r"mediapipe 0\.10\.14"),
    ):
        landmarker.detect(np.zeros((1, 4, 4, 3), np.uint8))
