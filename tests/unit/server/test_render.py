"""Offline rendering: inputs refused early, every sample and frame written, nothing left behind."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.cli import build_app
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.face.framing import NoFaceError
from visavis.engine.face.image import ImageError
from visavis.engine.session import AvatarFrame
from visavis.engine.weight_memory import WeightMemory
from visavis.server.audio_file import AudioFile, AudioFileError
from visavis.server.render import RenderError, render, speak

SIDE = 32


def write_audio(
    path: Path, seconds: float, rate: int, *, codec: str = "pcm_s16le", layout: str = "mono"
) -> Path:
    """A 440 Hz tone."""
    samples = round(seconds * rate)
    tone = (8000 * np.sin(np.arange(samples) * 2 * math.pi * 440 / rate)).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        if samples:
            packed = np.repeat(tone, channels)[None]
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate = rate
            frame.pts = 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class StubSession:
    """Grey frames, one for each 40 ms or part of it; chunks of at most 28 frames."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.pending = np.zeros(0, np.int16)
        self.committed = False
        self.index = 0
        self.most_buffered = 0

    @property
    def buffered_samples(self) -> int:
        return len(self.pending)

    def push_audio(self, pcm: NDArray[np.int16]) -> None:
        self.pending = np.concatenate([self.pending, pcm])
        self.most_buffered = max(self.most_buffered, len(self.pending))

    def commit(self) -> int:
        self.committed = True
        return math.ceil(len(self.pending) * 25 / self.rate)

    def next_chunk(self) -> int | None:
        return (
            33 if len(self.pending) and (self.committed or len(self.pending) > self.rate) else None
        )

    def generate(self) -> Iterator[AvatarFrame]:
        for _ in range(28):
            if not len(self.pending):
                return
            size = (self.index + 1) * self.rate // 25 - self.index * self.rate // 25
            audio, self.pending = self.pending[:size], self.pending[size:]
            pixels = np.full((SIDE, SIDE, 3), 100 + self.index % 100, np.uint8)
            yield AvatarFrame(self.index, pixels, audio, True, not len(self.pending))
            self.index += 1


class StubAvatar:
    warnings = ("A note.",)


class StubEngine:
    frame_size = (SIDE, SIDE)

    def prepare_avatar(self, image: object) -> StubAvatar:
        return StubAvatar()

    def open_session(self, avatar: StubAvatar, *, input_rate: int, **_: object) -> StubSession:
        return StubSession(input_rate)


def run(speech: Path, output: Path) -> tuple[str, ...]:
    return render("face.jpg", speech, output, engine=StubEngine(), progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "seconds"),
    [
        ("a.wav", "pcm_s16le", 16_000, "mono", 3.01),
        ("a.wav", "pcm_s16le", 22_050, "stereo", 2.5),
        ("a.flac", "flac", 44_100, "stereo", 0.5),
        ("a.mka", "pcm_s16le", 8_000, "mono", 0.02),
    ],
)
def test_video_holds_every_frame_and_the_sound(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str, seconds: float
) -> None:
    speech = write_audio(tmp_path / name, seconds, rate, codec=codec, layout=layout)
    output = tmp_path / "out.mp4"
    assert run(speech, output) == ("A note.",)
    with av.open(str(output)) as video:
        assert video.streams.video[0].average_rate == 25
        assert video.streams.audio[0].rate == rate
        frames = sum(1 for _ in video.decode(video=0))
        video.seek(0)
        sound = np.concatenate([frame.to_ndarray().reshape(-1) for frame in video.decode(audio=0)])
    assert frames == math.ceil(seconds * 25 - 1e-6)
    assert len(sound) >= round(seconds * rate)
    assert len(sound) <= round(seconds * rate) + 2 * 1024
    if seconds > 1:  # the tone is at its own volume, neither doubled nor halved by the mix-down
        middle = sound[rate // 2 : -rate // 2]
        loudness = float(np.sqrt(np.mean(np.square(middle))))
        assert loudness == pytest.approx(8000 / 32768 / math.sqrt(2), rel=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {name, "out.mp4"}


def test_odd_rates_become_ones_that_aac_knows(tmp_path: Path) -> None:
    for rate, expected in ((96_000, 48_000), (88_200, 44_100), (22_000, 48_000)):
        with AudioFile(write_audio(tmp_path / f"{rate}.wav", 0.5, rate)) as audio:
            assert audio.rate == expected
            assert sum(map(len, audio.blocks())) == pytest.approx(expected / 2, abs=expected / 100)


def test_a_long_recording_is_never_held_whole() -> None:
    session = StubSession(16_000)
    blocks = (np.zeros(4096, np.int16) for _ in range(400))
    frames = sum(1 for _ in speak(session, blocks, 16_000))  # type: ignore[arg-type]
    assert frames == math.ceil(400 * 4096 * 25 / 16_000)
    assert session.most_buffered < 3 * 16_000


def test_sound_that_cannot_be_used_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"not a wave file" * 20)
    with wave.open(str(tmp_path / "empty.wav"), "wb") as empty:
        empty.setparams((1, 2, 16_000, 0, "NONE", ""))
    picture = tmp_path / "silent.mp4"
    with av.open(str(picture), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        frame = av.VideoFrame.from_ndarray(np.zeros((SIDE, SIDE, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    for name, words in (
        ("noise.wav", "cannot read"),
        ("missing.wav", "no such file"),
        ("empty.wav", "no sound"),
        ("silent.mp4", "no audio track"),
    ):
        with pytest.raises(AudioFileError, match=words):
            run(tmp_path / name, tmp_path / "out.mp4")
        assert not (tmp_path / "out.mp4").exists()


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    speech = write_audio(tmp_path / "a.wav", 0.1, 16_000)
    as_input = write_audio(tmp_path / "b.mp4", 0.1, 16_000, codec="aac")
    for output, words in (
        (tmp_path / "out.avi", "MP4"),
        (tmp_path / "none" / "out.mp4", "no folder"),
        (as_input, "one of the inputs"),
    ):
        with pytest.raises(RenderError, match=words):
            run(as_input if output == as_input else speech, output)


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    speech = write_audio(tmp_path / "a.wav", 2, 16_000)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"old")

    class Failing(StubEngine):
        def open_session(self, avatar: StubAvatar, *, input_rate: int, **_: object) -> StubSession:
            session = StubSession(input_rate)
            session.push_audio = lambda pcm: (_ for _ in ()).throw(ValueError("stop"))  # type: ignore[method-assign,assignment]
            return session

    with pytest.raises(ValueError, match="stop"):
        render("face.jpg", speech, output, engine=Failing(), progress=False)  # type: ignore[arg-type]
    assert output.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_picture_is_checked_before_the_model_is_loaded(tmp_path: Path) -> None:
    from PIL import Image

    speech, nowhere = write_audio(tmp_path / "a.wav", 0.1, 16_000), tmp_path / "nowhere"
    blank = tmp_path / "blank.png"
    stream = io.BytesIO()
    Image.new("RGB", (128, 128), "teal").save(stream, "PNG")
    blank.write_bytes(stream.getvalue())
    with pytest.raises(NoFaceError, match="no face was found"):
        render(blank, speech, tmp_path / "o.mp4", weights=nowhere, progress=False)
    with pytest.raises(ImageError, match="no such file"):
        render(tmp_path / "x.png", speech, tmp_path / "o.mp4", weights=nowhere, progress=False)


def test_the_real_engine_speaks_to_the_end(tmp_path: Path) -> None:
    """With random weights: what the face does means nothing, but every frame must be there."""
    speech = write_audio(tmp_path / "a.wav", 0.5, 22_050)
    face = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars" / "clara.jpg"
    output = tmp_path / "out.mp4"
    render(face, speech, output, model="test", num_steps=1, progress=False)
    with av.open(str(output)) as video:
        assert (video.streams.video[0].height, video.streams.video[0].width) == (256, 256)
        assert sum(1 for _ in video.decode(video=0)) == math.ceil(0.5 * 25)


def test_the_program_says_how_the_model_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[dict[str, object]] = []

    def load(model: str, **how: object) -> StubEngine:
        loads.append({"model": model, **how})
        return StubEngine()

    monkeypatch.setattr(AvatarEngine, "load", load)
    speech, output = write_audio(tmp_path / "a.wav", 0.1, 16_000), tmp_path / "o.mp4"
    command = ["render", "face.jpg", str(speech), "-o", str(output), "--model", "flashtalk-14b"]
    flags = ["--compiled", "--recorded", "--quantize", "int8-dynamic", "--vae-dtype", "float32"]
    for more in ([], flags):
        with pytest.raises(SystemExit) as ended:
            build_app()([*command, *more])
        assert not ended.value.code
    plain, full = loads
    assert (plain["compiled"], plain["recorded"], plain["memory"]) == (False, False, WeightMemory())
    assert (full["model"], full["compiled"], full["recorded"]) == ("flashtalk-14b", True, True)
    assert full["memory"] == WeightMemory(quantize="int8-dynamic", vae_dtype="float32")
