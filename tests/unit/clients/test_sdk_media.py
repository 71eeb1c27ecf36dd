"""The Python client's buffers, audio and frames, without a server."""

from __future__ import annotations

import asyncio
import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from visavis_client.audio import as_pcm16, read_wav
from visavis_client.errors import (
    AudioFormatError,
    ConnectionFailedError,
    FrameDecodeError,
    SessionClosedError,
    TimedOutError,
)
from visavis_client.flow import FrameQueue, InputCredit, InputRate
from visavis_client.frames import AvatarFrame, FrameDecoder
from visavis_client.link import split_url


def frame(
    index: int, *, response: int = 0, epoch: int = 0, video: bytes = b"", **more: object
) -> AvatarFrame:
    fields = {"codec": "jpeg", "keyframe": True, "first": False, "last": False} | more
    return AvatarFrame(
        video=video,
        audio=b"",
        rate=16_000,
        pts_us=index * 40_000,
        epoch=epoch,
        response=response,
        seq=index,
        discontinuity=False,
        **fields,  # type: ignore[arg-type]
    )


def write_wav(path: Path, samples: np.ndarray, *, rate: int = 16_000, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


async def test_a_full_queue_drops_the_oldest_idle_frame_and_says_so() -> None:
    queue = FrameQueue(2)
    for index in range(4):
        await queue.put(frame(index))
    first, second = await queue.get(), await queue.get()
    assert isinstance(first, AvatarFrame)
    assert isinstance(second, AvatarFrame)
    assert (first.index, second.index) == (2, 3)
    assert (first.gap, second.gap) == (True, False)
    assert queue.dropped == 2


async def test_speech_is_never_dropped_but_waits_for_room() -> None:
    queue = FrameQueue(2)
    await queue.put(frame(0, response=1))
    await queue.put(frame(1, response=1))
    waiting = asyncio.create_task(queue.put(frame(2, response=1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    for index in range(3):
        item = await queue.get()
        assert isinstance(item, AvatarFrame)
        assert item.index == index
    await waiting
    assert queue.dropped == 0


async def test_void_epochs_are_discarded_now_and_later() -> None:
    queue = FrameQueue(8)
    await queue.put(frame(0, response=1))
    await queue.void(0)
    await queue.put(frame(1, response=1))
    await queue.put(frame(2, epoch=1))
    item = await queue.get()
    assert isinstance(item, AvatarFrame)
    assert item.index == 2
    assert len(queue) == 0


async def test_what_was_queued_can_be_read_after_the_end() -> None:
    queue = FrameQueue(8)
    await queue.put(frame(0))
    await queue.end(SessionClosedError(1006, "", None))
    assert isinstance(await queue.get(), AvatarFrame)
    with pytest.raises(SessionClosedError, match="1006"):
        await queue.get()


async def test_credit_waits_for_frames_to_come_back() -> None:
    credit = InputCredit(limit=1_000)
    await credit.take(1, 900, timeout_s=1)
    waiting = asyncio.create_task(credit.take(1, 200, timeout_s=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    credit.came_back(1, 640)
    await waiting
    assert credit.outstanding == 460
    credit.done(1)
    assert credit.outstanding == 0


async def test_credit_that_never_comes_is_an_error() -> None:
    credit = InputCredit(limit=100)
    await credit.take(1, 100, timeout_s=1)
    with pytest.raises(TimedOutError, match="read frames in another task"):
        await credit.take(1, 1, timeout_s=0.01)


def test_audio_keeps_to_the_servers_rate() -> None:
    now_s = 0.0
    rate = InputRate(8.0, 30.0, clock=lambda: now_s)
    waits = [rate.wait_s(0.25) for _ in range(108)]
    assert waits == [0.0] * 108  # 27 s: a first buffer full, and a margin
    sent_s = 0.0
    for _ in range(400):
        wait_s = rate.wait_s(0.25)
        now_s += wait_s
        sent_s += 0.25
    assert sent_s / now_s == pytest.approx(0.9 * 8.0, rel=0.05)
    assert InputRate(None, 0.0).wait_s(1_000.0) == 0.0


def test_speech_that_was_read_and_idle_frames_count_as_played() -> None:
    async def check() -> None:
        queue = FrameQueue(8)
        assert queue.position_us is None
        await queue.put(frame(0))
        await queue.put(frame(1))
        assert queue.position_us == 40_000
        await queue.put(frame(2, response=1))
        await queue.put(frame(3, response=1))
        assert queue.position_us == 40_000
        for _ in range(3):
            await queue.get()
        assert queue.position_us == 80_000
        await queue.get()
        assert queue.position_us == 120_000

    asyncio.run(check())


def test_wav_files_are_read_and_mixed_to_one_channel(tmp_path: Path) -> None:
    mono = np.array([1, -2, 3, 32767], "<i2")
    wav = read_wav(write_wav(tmp_path / "mono.wav", mono, rate=22_050))
    assert wav.pcm == mono.tobytes()
    assert wav.rate == 22_050
    assert wav.duration_s == 4 / 22_050
    stereo = np.array([[100, 300], [-4, -6], [32767, 32767]], "<i2")
    mixed = read_wav(write_wav(tmp_path / "stereo.wav", stereo))
    assert np.frombuffer(mixed.pcm, "<i2").tolist() == [200, -5, 32767]


def test_other_wav_files_are_refused_with_the_command_that_converts(tmp_path: Path) -> None:
    with pytest.raises(AudioFormatError, match="ffmpeg"):
        read_wav(write_wav(tmp_path / "wide.wav", np.zeros(4, "<i4"), width=4))
    (tmp_path / "noise.wav").write_bytes(b"RIFF of noise")
    with pytest.raises(AudioFormatError, match="no PCM WAV"):
        read_wav(tmp_path / "noise.wav")


def test_arrays_become_pcm16() -> None:
    samples = np.array([0, 1, -1, 32767], np.int16)
    assert as_pcm16(samples) == samples.astype("<i2").tobytes()
    floats = np.array([0.0, 1.0, -1.0, 2.0], np.float32)
    assert np.frombuffer(as_pcm16(floats), "<i2").tolist() == [0, 32767, -32767, 32767]
    assert as_pcm16(bytearray(b"ab")) == b"ab"


@pytest.mark.parametrize(
    "audio", [b"abc", np.zeros((2, 2), np.int16), np.zeros(2, np.int32), "text"]
)
def test_other_audio_is_refused(audio: object) -> None:
    with pytest.raises(AudioFormatError):
        as_pcm16(audio)  # type: ignore[arg-type]


def jpeg_of(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_a_jpeg_frame_decodes_to_rgb() -> None:
    pixels = np.full((16, 32, 3), (200, 40, 90), np.uint8)
    decoded = frame(0, video=jpeg_of(pixels)).to_rgb()
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).max() < 8
    with pytest.raises(FrameDecodeError, match="damaged"):
        frame(0, video=b"nothing").to_rgb()


def test_h264_needs_every_frame_from_a_keyframe_on() -> None:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 64, "yuv420p"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "annexb=1"}
    frames = []
    for index in range(6):
        picture = av.VideoFrame.from_ndarray(
            np.full((64, 64, 3), 40 * index, np.uint8), format="rgb24"
        )
        picture.pts = index
        data = b"".join(bytes(p) for p in encoder.encode(picture.reformat(format="yuv420p")))
        frames.append(frame(index, video=data, codec="h264", keyframe=index == 0, gap=index == 4))
    decoder = FrameDecoder()
    assert decoder.decode(frames[1]) is None
    for item in frames[:4]:
        pixels = decoder.decode(item)
        assert pixels is not None
        assert abs(float(pixels.mean()) - 40 * item.index) < 6
    assert decoder.decode(frames[4]) is None
    assert decoder.decode(frames[5]) is None
    with pytest.raises(FrameDecodeError, match="FrameDecoder"):
        frames[0].to_rgb()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", ("http://host:8000", "ws://host:8000")),
        ("wss://host/", ("https://host", "wss://host")),
        ("https://host/avatars/", ("https://host/avatars", "wss://host/avatars")),
        ("ws://host:1/v1/realtime/avatar", ("http://host:1", "ws://host:1")),
    ],
)
def test_addresses(url: str, expected: tuple[str, str]) -> None:
    assert split_url(url) == expected


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "", "http://"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConnectionFailedError, match="write it like"):
        split_url(url)
