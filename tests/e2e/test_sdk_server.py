"""The Python client against what only a whole server has: lost connections, tokens, renderings."""

from __future__ import annotations

import asyncio
import io
import wave
from pathlib import Path
from typing import Any

import anyio
import av
import pytest
from live_server import GALLERY_ID, LiveServer, make_config, noise, running
from stand_in import load_painting_engine

from visavis_client import AvatarClient, Recorder, connect
from visavis_client.events import ResponseDone, SessionResumed
from visavis_client.server_errors import AuthenticationError, MissingTokenError
from visavis_client.session import AvatarSession

# Loaded at first use, and pytest's import hook fails in the server's thread on Python 3.11.
anyio.open_file  # noqa: B018


def cut(session: AvatarSession) -> None:
    """As if the cable were cut."""
    socket: Any = session._channel._socket
    socket.transport.abort()


async def test_a_lost_connection_costs_no_sample(live: LiveServer) -> None:
    pcm = noise(48_000)
    async with connect(live.http, avatar=GALLERY_ID, video="none") as session:
        frames = []
        async for frame in session.speak(pcm):
            frames.append(frame)
            if len(frames) in (5, 30):
                cut(session)
        assert session.resumes == 2
        assert b"".join(frame.audio for frame in frames) == pcm
        assert [frame.gap for frame in frames] == [False] * 75
        statuses, resumed = [], 0
        async for event in session.events():
            resumed += isinstance(event, SessionResumed)
            if isinstance(event, ResponseDone):
                statuses.append(event.status)
                break
        assert (statuses, resumed) == (["completed"], 2)
        again = noise(8_000, seed=1)
        assert b"".join([f.audio async for f in session.speak(again)]) == again


async def test_speech_goes_on_being_sent_while_the_connection_is_lost(live: LiveServer) -> None:
    pieces = [noise(4_000, seed=number) for number in range(12)]
    async with connect(live.http, avatar=GALLERY_ID, video="none") as session:

        async def speak() -> None:
            for number, piece in enumerate(pieces):
                await session.send_audio(piece)
                if number in (3, 7):
                    cut(session)
                await asyncio.sleep(0.05)
            await session.commit()

        speaking = asyncio.create_task(speak())
        heard = bytearray()
        async for frame in session.frames(idle=False):
            heard += frame.audio
            if frame.last:
                break
        await speaking
    assert bytes(heard) == b"".join(pieces)


async def test_a_session_recorded_as_it_comes(live: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    async with connect(live.http, avatar=GALLERY_ID, video="h264") as session:
        with Recorder(path) as recorder:
            async for frame in session.speak(noise(16_000), idle=True):
                recorder.write(frame)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == round(25 * recorder.duration_s)
    assert recorder.skipped == 0
    assert recorder.duration_s >= 1


async def test_keys_and_client_secrets(tmp_path: Path) -> None:
    key = "k" * 40
    config = make_config(tmp_path, api_keys=f"app:{key}")
    with running(config, load_painting_engine) as server:
        with pytest.raises(MissingTokenError):
            async with connect(server.http, avatar=GALLERY_ID):
                pass
        with pytest.raises(AuthenticationError):
            await AvatarClient(server.http, token="wrong").avatars.list()
        client = AvatarClient(server.http, token=key)
        secret = await client.client_secrets.create(avatar_id=GALLERY_ID, max_duration_s=30)
        assert secret.value not in repr(secret)
        async with connect(server.http, avatar=GALLERY_ID, token=secret.value) as session:
            assert session.created.limits.max_session_s <= 30


async def test_a_recording_is_rendered(live: LiveServer) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(16_000)
        target.writeframes(noise(8_000))
    client = AvatarClient(live.http)
    video = await client.videos.create(file.getvalue(), avatar=GALLERY_ID)
    assert video.id in [item.id for item in await client.videos.list()]
    done = await client.videos.wait(video.id, timeout_s=60)
    assert done.status == "completed", done.raw
    with av.open(io.BytesIO(await client.videos.content(video.id))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13
    await client.videos.delete(video.id)
