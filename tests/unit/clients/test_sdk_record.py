"""The recorder's files, read back with FFmpeg's libraries; the microphone without a sound card."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from visavis.server.provenance import Provenance
from visavis_client import AvatarFrame, Microphone, MicrophoneError, Recorder
from visavis_client.errors import AvatarError, FrameDecodeError

SIZE = 64


def grey(index: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 20 + 8 * index, np.uint8)


def jpeg(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey(index)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def tone(samples: int = 640) -> bytes:
    return (8_000 * np.sin(np.arange(samples) / 5)).astype("<i2").tobytes()


def frame(index: int, video: bytes, codec: str, audio: bytes | None = None) -> AvatarFrame:
    return AvatarFrame(
        video=video,
        audio=tone() if audio is None else audio,
        codec=codec,
        rate=16_000,
        pts_us=40_000 * index,
        epoch=0,
        response=1,
        seq=index,
        keyframe=codec == "jpeg" or index % 10 == 0,
        first=False,
        last=False,
        discontinuity=False,
    )


def h264_frames(count: int) -> list[AvatarFrame]:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = SIZE, SIZE, "yuv420p"
    encoder.gop_size = 10
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "annexb=1:keyint=10:min-keyint=10:scenecut=0",
    }
    frames = []
    for index in range(count):
        picture = av.VideoFrame.from_ndarray(grey(index), format="rgb24")
        picture.pts = index
        data = b"".join(bytes(p) for p in encoder.encode(picture.reformat(format="yuv420p")))
        frames.append(frame(index, data, "h264"))
    return frames


def read(path: Path) -> tuple[list[tuple[float, float]], np.ndarray]:
    """(time, grey) of each picture, and the sound."""
    with av.open(str(path)) as container:
        pictures = [
            (float(p.time), float(p.to_ndarray(format="gray").mean()))
            for p in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        parts = [f.to_ndarray()[0] for f in container.decode(audio=0)]
    return pictures, np.concatenate(parts)


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_a_recording_has_every_picture_at_its_time_and_the_sound(
    tmp_path: Path, codec: str
) -> None:
    frames = h264_frames(20) if codec == "h264" else [frame(i, jpeg(i), codec) for i in range(20)]
    with Recorder(tmp_path / "out.mp4") as recorder:
        for item in frames:
            recorder.write(item)
        assert recorder.duration_s == 0.8
    pictures, sound = read(tmp_path / "out.mp4")
    assert [time for time, _ in pictures] == pytest.approx([i / 25 for i in range(20)])
    for index, (_, value) in enumerate(pictures):
        assert value == pytest.approx(20 + 8 * index, abs=4)
    assert len(sound) / 16_000 == pytest.approx(0.8, abs=0.1)
    assert float(np.abs(sound).max()) > 0.15


def test_frames_before_the_first_keyframe_are_left_out(tmp_path: Path) -> None:
    with Recorder(tmp_path / "out.mp4") as recorder:
        for item in h264_frames(15)[5:]:
            recorder.write(item)
    assert recorder.skipped == 5
    pictures, _ = read(tmp_path / "out.mp4")
    assert len(pictures) == 5
    assert pictures[0][1] == pytest.approx(100, abs=4)


@pytest.mark.parametrize(("close_gaps", "length_s"), [(False, 0.8), (True, 0.4)])
def test_missing_frames_leave_a_gap_or_not(
    tmp_path: Path, close_gaps: bool, length_s: float
) -> None:
    with Recorder(tmp_path / "out.mp4", close_gaps=close_gaps) as recorder:
        for index in (*range(5), *range(15, 20)):
            recorder.write(frame(index, jpeg(index), "jpeg"))
    assert recorder.duration_s == length_s
    pictures, sound = read(tmp_path / "out.mp4")
    assert len(pictures) == 10
    assert pictures[5][0] == pytest.approx(0.2 if close_gaps else 0.6)
    if not close_gaps:
        middle = sound[int(0.3 * 16_000) : int(0.5 * 16_000)]
        assert float(np.abs(middle).max()) < 0.02


def test_the_short_end_of_an_utterance_and_left_out_pictures_keep_the_time(tmp_path: Path) -> None:
    with Recorder(tmp_path / "out.mp4") as recorder:
        for index in range(10):
            audio = tone(100) if index == 4 else tone()
            recorder.write(frame(index, b"" if index == 7 else jpeg(index), "jpeg", audio))
    pictures, sound = read(tmp_path / "out.mp4")
    assert [time for time, _ in pictures] == pytest.approx([i / 25 for i in range(10) if i != 7])
    assert len(sound) / 16_000 == pytest.approx(0.4, abs=0.1)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "out.mp4") as recorder:
        with pytest.raises(FrameDecodeError, match="cannot be recorded"):
            recorder.write(frame(0, b"moof", "fmp4"))
        with pytest.raises(FrameDecodeError, match="damaged"):
            recorder.write(frame(0, b"nothing", "jpeg"))
        recorder.write(frame(0, jpeg(0), "jpeg"))
        with pytest.raises(FrameDecodeError, match="a file of its own"):
            recorder.write(h264_frames(1)[0])
    recorder.close()
    with pytest.raises(AvatarError, match="closed"):
        recorder.write(frame(1, jpeg(1), "jpeg"))


def tags_of(path: Path, **facts: Any) -> dict[str, str]:
    with Recorder(path, **facts) as recorder:
        recorder.write(frame(0, jpeg(0), "jpeg"))
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.mark.parametrize("consent", [None, True, False])
def test_a_recording_says_the_same_of_itself_as_the_servers(
    tmp_path: Path, consent: bool | None
) -> None:
    tags = tags_of(tmp_path / "out.mp4", model="embedded", consent=consent)
    server = Provenance(model="embedded", consent=consent).metadata()
    assert set(server) <= set(tags)
    facts, expected = json.loads(tags["comment"]), json.loads(server["comment"])
    assert list(facts) == list(expected)
    for name in ("synthetic", "digitalSourceType", "model", "consent"):
        assert facts.get(name) == expected.get(name)
    assert facts["software"] == f"visavis-client {version('visavis-client')}"
    age_s = (datetime.now(UTC) - datetime.fromisoformat(facts["created"])).total_seconds()
    assert -1 <= age_s < 60


def test_what_is_not_known_of_a_recording_is_not_said(tmp_path: Path) -> None:
    facts = json.loads(tags_of(tmp_path / "out.mp4")["comment"])
    assert set(facts) == {"synthetic", "digitalSourceType", "software", "created"}


class Card:
    """A sound card that plays into the microphone what it is told."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def close(self) -> None:
        self.running = False

    def hear(self, data: bytes) -> None:
        self.options["callback"](data, len(data) // 2, None, None)


async def test_the_microphone_gives_blocks_until_it_is_stopped() -> None:
    cards: list[Card] = []

    def source(**options: Any) -> Card:
        cards.append(Card(**options))
        return cards[-1]

    async with Microphone(rate=24_000, source=source) as microphone:
        (card,) = cards
        assert card.running
        assert (card.options["samplerate"], card.options["blocksize"]) == (24_000, 960)
        loud = np.array([0, -16_384], "<i2").tobytes()
        await asyncio.to_thread(card.hear, b"ab")
        await asyncio.to_thread(card.hear, loud)
        await asyncio.sleep(0)
        assert microphone.level == 0.5
        microphone.stop()
        assert [block async for block in microphone] == [b"ab", loud]
    assert not card.running


async def test_blocks_that_nobody_takes_are_bounded() -> None:
    card: Any = None

    def source(**options: Any) -> Card:
        nonlocal card
        card = Card(**options)
        return card

    async with Microphone(max_blocks=2, source=source) as microphone:
        for number in range(5):
            card.hear(bytes([number, 0]))
        await asyncio.sleep(0)
        microphone.stop()
        assert [block[0] async for block in microphone] == [3, 4]
    assert microphone.dropped == 3


async def test_a_sound_card_that_refuses_is_said_so() -> None:
    def source(**_: Any) -> Card:
        raise OSError("no such device")

    with pytest.raises(MicrophoneError, match="no such device"):
        async with Microphone(source=source):
            pass
