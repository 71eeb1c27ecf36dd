"""How the mouth's answer to recordings is measured."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.training.evaluation.recordings import (
    FLOOR_DB,
    FPS,
    Response,
    find_recordings,
    loudness,
    pauses,
    plot_recordings,
    recording_figures,
)
from visavis.training.speech.audio_files import read_recording
from visavis.training.speech.phonemes import SAMPLE_RATE


def bursts(seconds: float, hertz: float = 700.0) -> NDArray[np.float32]:
    """A tone that sounds for half a second out of every second."""
    at = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * hertz * at) * (at % 1 < 0.5)).astype(np.float32)


def response(opening: NDArray[np.float64], level: NDArray[np.float64]) -> Response:
    frames = np.zeros((len(opening), 8, 8, 3), np.uint8)
    return Response(name="x", frames=frames, loudness=level, opening=opening)


def test_loudness_follows_vowels_and_neither_hiss_nor_hum() -> None:
    level = loudness(bursts(4.0))
    assert len(level) == 4 * FPS
    assert level[3:10].min() > -3
    assert level[16:22].max() == pytest.approx(FLOOR_DB)
    for hertz in (40.0, 7000.0):
        mixed = loudness(bursts(4.0) + bursts(4.0, hertz)[::-1])
        assert mixed[16:22].max() < -15


def test_pauses_leave_their_edges_out_and_short_ones_are_none() -> None:
    level = np.zeros(40)
    level[5:9] = level[20:30] = FLOOR_DB
    assert list(np.flatnonzero(pauses(level))) == list(range(22, 28))


def test_a_mouth_that_follows_and_shuts_scores_well_and_one_that_lags_is_found() -> None:
    level = loudness(bursts(8.0))
    opening = 1 - level / FLOOR_DB
    good = recording_figures([response(opening, level)])
    assert good["recordings_r"] == pytest.approx(1.0)
    assert good["recordings_lag_frames"] == 0
    assert good["recordings_pause_opening"] == pytest.approx(0.0, abs=0.02)
    late = recording_figures([response(np.roll(opening, 3), level)])
    assert late["recordings_lag_frames"] == 3
    later = np.arange(len(level)) > 2 * FPS
    hanging = np.maximum(opening, 0.5 * (later & (level < -30)))
    slack = recording_figures([response(hanging, level)])
    assert slack["recordings_pause_opening"] > 0.4


def test_a_stereo_file_of_another_rate_is_mixed_down(tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    tone = (8000 * np.sin(np.arange(44100) * 2 * np.pi * 440 / 44100)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=44100, layout="stereo")
        both = np.stack([tone, tone], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pcm = read_recording(path, SAMPLE_RATE)
    assert len(pcm) == pytest.approx(SAMPLE_RATE, abs=64)
    assert np.sqrt(np.mean(np.square(pcm[800:-800]))) == pytest.approx(8000 / 32768 / 2**0.5, 0.03)


def test_only_sound_files_are_found(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_recordings(tmp_path)] == ["a.FLAC", "b.wav"]
    assert find_recordings(tmp_path / "nowhere") == []


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    level = loudness(bursts(3.0))
    plot_recordings([response(1 - level / FLOOR_DB, level)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
