"""Frame-wise resampling equals resampling the whole, at any rate."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.engine.audio.resample import FrameResampler
from visavis.engine.plan import PlanError

RATES = [8000, 11025, 12345, 15999, 16000, 22050, 24000, 32000, 44100, 44101, 48000]


def _sound(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(-9000, 9000, samples, dtype=np.int16)


@pytest.mark.parametrize("rate", RATES)
def test_frames_equal_the_whole_recording(rate: int) -> None:
    pcm = _sound(rate + 17)
    whole = soxr.resample(pcm.astype(np.float32) / 32768, rate, 16000)
    whole = np.pad(whole, (0, 26 * 640 - len(whole)))
    resampler = FrameResampler(rate)
    frames = [resampler.frame(pcm, 0, j) for j in range(26)]
    np.testing.assert_allclose(np.concatenate(frames), whole, atol=3e-6)


@settings(max_examples=50, deadline=None)
@given(rate=st.integers(8000, 48000), frame=st.integers(0, 60))
def test_a_ready_frame_needs_no_more_and_no_less_than_it_says(rate: int, frame: int) -> None:
    resampler = FrameResampler(rate)
    pcm = _sound(rate * 3)
    expected = resampler.frame(pcm, 0, frame)
    first, end = resampler.first_sample(frame), resampler.end_sample(frame)
    np.testing.assert_array_equal(resampler.frame(pcm[first:end], first, frame), expected)
    assert resampler.ready_frames(end) >= frame + 1
    assert resampler.ready_frames(end - 1) <= frame


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_is_ready_at_most_13_ms_after_its_last_sample(rate: int) -> None:
    assert FrameResampler(rate).end_sample(9) / rate - 0.4 < 0.013


def test_16_khz_passes_through_at_once() -> None:
    pcm = _sound(1280)
    resampler = FrameResampler(16000)
    assert resampler.ready_frames(640) == 1
    np.testing.assert_array_equal(resampler.frame(pcm, 0, 1) * 32768, pcm[640:])


def test_other_rates_are_refused() -> None:
    with pytest.raises(PlanError, match="input_rate=96000"):
        FrameResampler(96_000)
