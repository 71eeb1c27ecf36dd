"""Log-mel features: any slicing equals the whole, and they are what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.audio.mel import (
    ENERGY_FLOOR,
    MEL_BINS,
    SILENCE_LEVEL,
    MelExtractor,
    mel_features,
)


def _sound(samples: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.standard_normal(samples) * 0.1).astype(np.float32)


@given(slices=st.lists(st.integers(0, 3000), max_size=20))
def test_any_slicing_equals_the_whole(slices: list[int]) -> None:
    pcm = _sound(sum(slices))
    extractor, parts = MelExtractor(), []
    for piece in np.split(pcm, np.cumsum(slices)[:-1]) if slices else []:
        parts.append(extractor.push(piece))
    parts.append(extractor.flush())
    np.testing.assert_array_equal(np.concatenate(parts), mel_features(pcm))


def test_a_long_recording_equals_its_frames_one_by_one() -> None:
    pcm = _sound(640 * 2100)  # more than one block of the batch path
    extractor = MelExtractor()
    parts = [extractor.push(frame) for frame in pcm.reshape(-1, 640)]
    np.testing.assert_array_equal(np.concatenate(parts), mel_features(pcm))


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641])
def test_frames_cover_every_sample(samples: int) -> None:
    features = mel_features(_sound(samples))
    assert features.shape == (-(-samples // 640), 4, 64)
    assert features.dtype == np.float32


def test_a_column_holds_the_energy_of_the_window_that_ends_with_it() -> None:
    pcm = _sound(1280)
    padded = np.concatenate([np.zeros(240), pcm])
    hann = np.hanning(401)[:-1]
    for j in (0, 1, 5, 7):
        power = np.abs(np.fft.rfft(padded[j * 160 : j * 160 + 400] * hann, 512)) ** 2
        column = mel_features(pcm).reshape(-1, 64)[j]
        energy = 10 ** (column.astype(np.float64) * 2 - 2)
        # Triangles overlap to a sum of one between the first and the last peak.
        inner = power[4:225].sum()
        assert inner * 0.8 < energy.sum() < power.sum()


def test_the_future_changes_nothing() -> None:
    pcm = _sound(1280)
    changed = pcm.copy()
    changed[640:] = 0
    np.testing.assert_array_equal(mel_features(pcm)[0], mel_features(changed)[0])


def test_digital_silence_and_rounding_noise_are_one_constant() -> None:
    silence = mel_features(np.zeros(1600, np.float32))
    np.testing.assert_array_equal(silence, SILENCE_LEVEL)
    rounding = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32) / 32768
    np.testing.assert_array_equal(mel_features(rounding), SILENCE_LEVEL)
    assert pytest.approx(-2.0) == SILENCE_LEVEL
    assert ENERGY_FLOOR > 0


@pytest.mark.parametrize("hz", [100, 440, 1000, 3000, 7000])
def test_a_tone_excites_the_bins_around_it(hz: int) -> None:
    t = np.arange(16000) / 16000
    column = mel_features(np.sin(2 * np.pi * hz * t).astype(np.float32))[10, 2]
    peak = int(column.argmax())
    mel = hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)
    low, high = 0.75, 15 + 27 * np.log(7.6) / np.log(6.4)
    expected = (mel - low) / (high - low) * (MEL_BINS + 1) - 1
    assert abs(peak - expected) <= 1


def test_a_copy_goes_its_own_way() -> None:
    extractor = MelExtractor()
    extractor.push(_sound(700))
    twin = extractor.copy()
    rest = _sound(900)
    first = extractor.push(rest)
    np.testing.assert_array_equal(twin.push(rest), first)
    assert extractor.pending_samples == 320


def test_stereo_is_refused() -> None:
    with pytest.raises(ValueError, match="mono"):
        mel_features(np.zeros((2, 100), np.float32))
