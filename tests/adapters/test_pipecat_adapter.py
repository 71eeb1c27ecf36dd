"""The Pipecat service in a real pipeline, against a server at VISAVIS_URL."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="needs the environment of `make adapters`")

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InterruptionFrame,
    OutputImageRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test

from visavis_client.adapters.pipecat import AvatarVideoService

URL = os.environ.get("VISAVIS_URL", "")
AVATAR = os.environ.get("VISAVIS_AVATAR", "")
pytestmark = pytest.mark.skipif(not URL, reason="VISAVIS_URL names no server")
RATE = 24_000


def speech(seconds: float, rate: int = RATE) -> Any:
    pcm = np.random.default_rng(0).integers(-8_000, 8_000, round(seconds * rate), dtype=np.int16)
    return TTSAudioRawFrame(pcm.tobytes(), rate, 1)


async def run(frames: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
    service = AvatarVideoService(url=URL, **({"avatar": AVATAR} | options))
    params = PipelineParams(audio_out_sample_rate=RATE)
    async with asyncio.timeout(40):
        down, up = await run_test(
            service, frames_to_send=frames, pipeline_params=params, start_timeout=10
        )
    return list(down), list(up)


def spoken(frames: list[Any]) -> bytes:
    return b"".join(f.audio for f in frames if isinstance(f, TTSAudioRawFrame))


@pytest.mark.parametrize("video", ["jpeg", "h264"])
async def test_speech_comes_back_with_its_pictures_and_then_its_end(video: str) -> None:
    first, second = speech(0.3), speech(0.2)
    down, up = await run(
        [TTSStartedFrame(), first, second, TTSStoppedFrame(), TextFrame("passes")],
        options={"video": video},
    )
    assert not [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert spoken(down) == first.audio + second.audio
    kinds = [type(frame) for frame in down]
    assert kinds.count(TTSStoppedFrame) == 1
    last_audio = len(kinds) - 1 - kinds[::-1].index(TTSAudioRawFrame)
    assert kinds.index(TTSStoppedFrame) > last_audio
    assert TextFrame in kinds
    for before, frame in zip(down, down[1:], strict=False):
        if isinstance(frame, TTSAudioRawFrame):
            assert isinstance(before, OutputImageRawFrame)
            assert before.size == (256, 256)
            assert before.format == "RGB"
            assert before.sync_with_audio
    assert not isinstance(down[-1], EndFrame)


async def test_another_rate_is_resampled() -> None:
    down, _ = await run([speech(0.5, 16_000), TTSStoppedFrame()])
    assert len(spoken(down)) / 2 / RATE == pytest.approx(0.5, abs=0.05)


async def test_an_interruption_stops_the_speech_and_the_next_one_is_whole() -> None:
    again = speech(0.2)
    down, _ = await run(
        [
            *[speech(2.0) for _ in range(10)],
            TTSStoppedFrame(),
            SleepFrame(1.5),
            InterruptionFrame(),
            SleepFrame(0.2),
            again,
            TTSStoppedFrame(),
        ]
    )
    cut = next(i for i, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    assert 0 < len(spoken(down[:cut])) / 2 / RATE < 5
    assert spoken(down[cut:]) == again.audio
    assert sum(isinstance(frame, TTSStoppedFrame) for frame in down) == 1


async def test_a_stop_without_speech_passes() -> None:
    down, up = await run([TTSStoppedFrame()])
    assert sum(isinstance(frame, TTSStoppedFrame) for frame in down) == 1
    assert not up


async def test_without_an_avatar_the_pipeline_goes_on_and_is_told() -> None:
    said = speech(0.1)
    down, up = await run([said, TTSStoppedFrame()], avatar="nobody")
    (error,) = [frame for frame in up if isinstance(frame, ErrorFrame)]
    assert "avatar_not_found" in error.error
    assert spoken(down) == said.audio
