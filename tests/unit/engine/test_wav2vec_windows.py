"""Loudness and windows of audio features."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.engine.audio.loudness import loudness_lufs, normalize_loudness
from visavis.engine.audio.window import audio_windows

RATE = 16_000


def tone(amplitude: float, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 997 * np.arange(int(seconds * RATE)) / RATE)


def test_full_scale_sine_is_minus_three_lufs() -> None:
    """The reference signal of BS.1770-4: 997 Hz at full scale in one channel reads -3.01."""
    assert loudness_lufs(tone(1.0, 3.0), RATE) == pytest.approx(-3.01, abs=0.1)


def test_normalised_sound_has_the_target_loudness() -> None:
    assert loudness_lufs(normalize_loudness(tone(0.3), RATE), RATE) == pytest.approx(-23, abs=0.01)


@pytest.mark.parametrize("wave", [np.zeros(RATE), tone(0.5, 0.2), np.zeros(0)])
def test_silence_and_short_sound_stay_as_they_are(wave: np.ndarray) -> None:
    assert np.array_equal(normalize_loudness(wave, RATE), wave)


@settings(deadline=None)
@given(st.integers(1, 30), st.data())
def test_windows_hold_clamped_neighbours(frames: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, frames - 1))
    stop = data.draw(st.integers(start + 1, frames))
    features = torch.arange(frames, dtype=torch.float32).view(frames, 1, 1)
    windows = audio_windows(features, start, stop)[:, :, 0, 0]
    for row, centre in zip(windows.tolist(), range(start, stop), strict=True):
        assert row == [min(max(centre + i, 0), stop - 1) for i in (-2, -1, 0, 1, 2)]


def test_range_outside_the_features_is_refused() -> None:
    with pytest.raises(ValueError, match="stop=4"):
        audio_windows(torch.zeros(3, 1, 1), 0, 4)
