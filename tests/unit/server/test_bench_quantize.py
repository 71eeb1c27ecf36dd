"""What `visavis bench quantize` says of the errors it saw."""

import numpy as np
import pytest

from visavis.engine.schematic import schematic_portrait
from visavis.engine.weight_memory import QuantizationError
from visavis.server.bench_quantize import Comparison, lag, measure_quality, psnr_db
from visavis.server.bench_quantize_run import Made, loudness


def test_psnr_of_equal_pictures_is_bounded() -> None:
    assert psnr_db(0.0) == 99.0
    assert psnr_db(255.0**2) == 0.0


def made(level: float, shift_px: float = 0.0) -> Made:
    opening = np.sin(np.arange(28) / 3).astype(np.float32)
    motion = np.full((28, 6, 16, 16), 1 + shift_px, np.float32)
    return Made(np.full((2, 8, 8, 3), level).astype(np.uint8), motion, opening)


def test_drift_shows_between_the_first_and_the_last_tenth() -> None:
    side, exact = Comparison(), made(100)
    for chunk in range(20):
        side.add(made(110 if chunk < 10 else 132, chunk // 10), exact)
    sound = np.zeros(20 * 28, np.float32)
    found = side.quality("int8", 2_000_000, [made(0).opening] * 20, sound)  # type: ignore[list-item]
    assert found.first_psnr_db - found.last_psnr_db == pytest.approx(20 * np.log10(3.2))
    assert found.worst_psnr_db == pytest.approx(found.last_psnr_db)
    assert (found.chunks, found.weight_megabytes) == (20, 2.0)
    assert found.levels == pytest.approx(21)
    assert (found.first_motion_px, found.last_motion_px) == (0.0, 1.0)
    assert found.excursion == pytest.approx(2.0)  # from 1 px off the portrait to 2
    assert found.mouth is not None
    assert found.mouth.r == pytest.approx(1.0)
    assert found.sound is not None
    assert (found.sound.r, found.sound.frames) == (0.0, 0)  # silence has no curve


@pytest.mark.parametrize("frames", [-3, 0, 5])
def test_a_late_mouth_has_a_positive_lag(frames: int) -> None:
    curve = np.random.default_rng(0).normal(size=300).astype(np.float32)
    found = lag(np.roll(curve, frames)[10:-10], curve[10:-10])
    assert found.frames == frames
    assert found.r == pytest.approx(1.0, abs=1e-5)


def test_loudness_goes_round_with_the_recording() -> None:
    sound = np.repeat(np.array([0.5, -0.25], np.float32), 640)
    assert loudness(sound, 1).tolist() == [0.5, 0.25] * 14


def test_a_session_against_itself_and_against_rounded_weights() -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    exact, rounded = measure_quality(
        "test", None, "cpu", schematic_portrait(), 2, ["int8"], frames=1
    )
    assert (exact.precision, exact.psnr_db, exact.last_motion_px) == ("float32", 99.0, 0.0)
    assert exact.mouth is not None
    assert exact.mouth.r == pytest.approx(1.0)
    # untrained weights give no velocity, so that rounding them changes nothing but their size
    assert rounded.weight_megabytes < exact.weight_megabytes
    assert rounded.psnr_db == 99.0
    assert rounded.mouth == exact.mouth


@pytest.mark.slow
def test_what_rounding_costs_is_seen_in_every_mode_of_a_cpu() -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    modes = ["int8", "fp8", "int8-dynamic", "bfloat16"]
    exact, *rounded = measure_quality(
        "embedded", None, "cpu", schematic_portrait(), 1, modes, frames=1
    )
    assert [quality.precision for quality in rounded] == modes
    for quality in rounded:
        assert quality.weight_megabytes < 0.6 * exact.weight_megabytes, quality
        assert 25 < quality.psnr_db < 99, quality
        assert quality.last_motion_px is not None
        assert 0 < quality.last_motion_px < 0.5, quality
    assert rounded[0].psnr_db > rounded[1].psnr_db  # three bits of mantissa are fewer than seven


def test_bad_requests_are_refused_before_the_work() -> None:
    portrait = schematic_portrait()
    with pytest.raises(ValueError, match="chunks=0: must be at least 1"):
        measure_quality("test", None, "cpu", portrait, 0, ["int8"])
    with pytest.raises(ValueError, match=r"frames=29: must be in 1\.\.28"):
        measure_quality("test", None, "cpu", portrait, 1, ["int8"], frames=29)
    with pytest.raises(QuantizationError, match="'int3' is unknown"):
        measure_quality("test", None, "cpu", portrait, 1, ["int3"])
