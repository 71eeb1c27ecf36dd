"""The LiveKit adapter under the real AvatarRunner, against a server at VISAVIS_URL.

No LiveKit server is needed: the room is one that takes tracks and gives them to nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

agents = pytest.importorskip("livekit.agents", reason="needs the environment of `make adapters`")
rtc = pytest.importorskip("livekit.rtc")

from livekit.agents.voice.avatar import (  # noqa: E402
    AudioSegmentEnd,
    AvatarRunner,
    QueueAudioOutput,
)

from visavis_client import AvatarSession, connect  # noqa: E402
from visavis_client.adapters.livekit import AvatarVideoGenerator  # noqa: E402

URL = os.environ.get("VISAVIS_URL", "")
AVATAR = os.environ.get("VISAVIS_AVATAR", "")
pytestmark = pytest.mark.skipif(not URL, reason="VISAVIS_URL names no server")


def speech(seconds: float, rate: int, channels: int = 1) -> Any:
    samples = round(seconds * rate)
    pcm = np.random.default_rng(0).integers(-8_000, 8_000, samples * channels, dtype=np.int16)
    return rtc.AudioFrame(pcm.tobytes(), rate, channels, samples)


@pytest.fixture(params=["jpeg", "h264"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[AvatarSession]:
    async with connect(URL, avatar=AVATAR, rate=24_000, video=request.param) as opened:
        yield opened


async def collect(generator: AvatarVideoGenerator, segments: int) -> list[Any]:
    found = []
    async with asyncio.timeout(20):
        async for item in generator:
            found.append(item)
            segments -= isinstance(item, AudioSegmentEnd)
            if not segments:
                break
    return found


async def test_a_segment_comes_back_as_pictures_with_their_sound(session: AvatarSession) -> None:
    generator = AvatarVideoGenerator(session)
    said = speech(0.5, 24_000)
    await generator.push_audio(said)
    await generator.push_audio(AudioSegmentEnd())
    found = await collect(generator, 1)
    audio = [item for item in found if isinstance(item, rtc.AudioFrame)]
    assert b"".join(bytes(item.data) for item in audio) == bytes(said.data)
    for before, item in zip(found, found[1:], strict=False):
        if isinstance(item, rtc.AudioFrame):
            assert isinstance(before, rtc.VideoFrame)
            assert (before.width, before.height) == (256, 256)
    assert sum(isinstance(item, AudioSegmentEnd) for item in found) == 1


async def test_other_rates_and_channels_are_taken_too(session: AvatarSession) -> None:
    generator = AvatarVideoGenerator(session)
    for _ in range(10):
        await generator.push_audio(speech(0.1, 48_000, channels=2))
    await generator.push_audio(AudioSegmentEnd())
    found = await collect(generator, 1)
    played_s = sum(item.duration for item in found if isinstance(item, rtc.AudioFrame))
    assert played_s == pytest.approx(1.0, abs=0.02)


async def test_an_empty_segment_ends_too(session: AvatarSession) -> None:
    generator = AvatarVideoGenerator(session)
    await generator.push_audio(AudioSegmentEnd())
    found = await collect(generator, 1)
    assert not any(isinstance(item, rtc.AudioFrame) for item in found)


async def test_clearing_stops_at_once_and_the_next_segment_is_whole(
    session: AvatarSession,
) -> None:
    generator = AvatarVideoGenerator(session)
    pushing = asyncio.create_task(generator.push_audio(speech(60, 24_000)))
    heard, after = 0, None
    said = speech(0.3, 24_000)
    async with asyncio.timeout(20):
        async for item in generator:
            if after is not None and isinstance(item, rtc.AudioFrame):
                after += bytes(item.data)
            if isinstance(item, AudioSegmentEnd):
                break
            heard += isinstance(item, rtc.AudioFrame)
            if heard == 5 and after is None:
                after = b""
                await generator.clear_buffer()
                await pushing
                await generator.push_audio(said)
                await generator.push_audio(AudioSegmentEnd())
    assert after == bytes(said.data)


class Publication:
    async def wait_for_subscription(self) -> None:
        return None


class Participant:
    async def publish_track(self, track: Any, options: Any) -> Publication:
        return Publication()


class Room:
    """As much of a room as AvatarRunner touches."""

    local_participant = Participant()

    def isconnected(self) -> bool:
        return True

    def on(self, *_: Any) -> None:
        return None

    off = on


async def test_the_runner_plays_a_segment_and_reports_its_end_and_interruptions() -> None:
    async with connect(URL, avatar=AVATAR, rate=24_000) as session:
        output = QueueAudioOutput(sample_rate=24_000)
        finished: asyncio.Queue[Any] = asyncio.Queue()
        output.on("playback_finished", finished.put_nowait)
        generator = AvatarVideoGenerator(session)
        room: Any = Room()
        runner = AvatarRunner(
            room, audio_recv=output, video_gen=generator, options=generator.options
        )
        await runner.start()
        try:
            await output.capture_frame(speech(0.6, 24_000))
            output.flush()
            event = await asyncio.wait_for(finished.get(), 15)
            assert not event.interrupted
            assert event.playback_position == pytest.approx(0.6, abs=0.05)
            await output.capture_frame(speech(20, 24_000))
            await asyncio.sleep(2)
            output.clear_buffer()
            output.flush()
            event = await asyncio.wait_for(finished.get(), 15)
            assert event.interrupted
            assert 0 < event.playback_position < 4
        finally:
            await runner.aclose()
