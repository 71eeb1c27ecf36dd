"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import math
import re
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import GALLERY_ID, LiveServer, drawn_face, encoded, make_config, noise, running
from stand_in import load_painting_engine

from visavis_client import (
    AvatarClient,
    AvatarError,
    ConnectionFailedError,
    FrameDecoder,
    Retry,
    ServerError,
    SessionClosedError,
    SyncAvatarClient,
    TimedOutError,
    connect,
    connect_sync,
    read_wav,
)
from visavis_client.events import ResponseDone
from visavis_client.server_errors import AvatarNotFoundError, CapacityError

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_readme_example_runs(
    live: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    code = EXAMPLES[number]
    assert len(code.strip().splitlines()) <= 15
    code = code.replace("http://127.0.0.1:8000", live.http).replace("astronaut", GALLERY_ID)
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(noise(12_000))
    (tmp_path / "me.jpg").write_bytes(encoded(drawn_face()))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    compiled = compile(code, "README.md", "exec")
    if "connect" in code:
        exec(compiled, names)
    else:
        # Goes on where another one stopped, with a session and a recording.
        speech = read_wav("speech.wav")
        with connect_sync(live.http, avatar=GALLERY_ID, rate=speech.rate, video="h264") as session:
            names |= {"session": session, "speech": speech, "FrameDecoder": FrameDecoder}
            exec(compiled, names)
        assert names["pixels"].shape[2] == 3
    if number == 0:
        frames = sorted(tmp_path.glob("frame*.jpg"))
        assert len(frames) == 13
        assert all(frame.read_bytes().startswith(b"\xff\xd8") for frame in frames)
    if "Recorder" in code:
        assert (tmp_path / "out.mp4").stat().st_size > 10_000
    if "upload_avatar" in code:
        remaining = SyncAvatarClient(live.http).rest.list_avatars()
        assert [avatar.id for avatar in remaining] == [GALLERY_ID]


@pytest.mark.parametrize(("rate", "samples"), [(16_000, 20_001), (44_100, 30_000), (8_000, 1)])
async def test_the_audio_comes_back_whole_with_its_frames(
    live: LiveServer, rate: int, samples: int
) -> None:
    pcm = noise(samples)
    async with connect(live.http, avatar=GALLERY_ID, rate=rate) as session:
        assert session.settings.input_audio.rate == rate
        frames = [frame async for frame in session.speak(pcm)]
        again = [frame async for frame in session.speak(pcm)]
    for part in (frames, again):
        assert b"".join(frame.audio for frame in part) == pcm
        assert len(part) == math.ceil(samples * 25 / rate)
        assert part[0].first
        assert part[-1].last
        assert part[0].to_rgb().shape == (256, 256, 3)
    assert again[0].index > frames[-1].index


async def test_pieces_of_a_live_synthesizer(live: LiveServer) -> None:
    pcm = noise(16_000)
    samples = np.frombuffer(pcm, "<i2")

    async def synthesize() -> AsyncIterator[np.ndarray]:
        for start in range(0, len(samples), 1_111):
            yield samples[start : start + 1_111]
            await asyncio.sleep(0.005)

    async with connect(live.ws, avatar=GALLERY_ID, video="none") as session:
        frames = [frame async for frame in session.speak(synthesize())]
        assert [frame async for frame in session.speak(b"")] == []
    assert b"".join(frame.audio for frame in frames) == pcm


async def test_a_synthesizer_that_fails_ends_the_loop_with_its_error(live: LiveServer) -> None:
    def pieces() -> Iterator[bytes]:
        yield noise(8_000)
        raise OSError("the synthesizer fell over")

    async with connect(live.http, avatar=GALLERY_ID, video="none") as session:
        with pytest.raises(OSError, match="fell over"):
            async for _ in session.speak(pieces()):
                pass
        pcm = noise(4_000)
        assert b"".join([f.audio async for f in session.speak(pcm)]) == pcm


async def test_h264_with_idle_frames_decodes_to_the_last_frame(live: LiveServer) -> None:
    decoder = FrameDecoder()
    async with connect(live.http, avatar=GALLERY_ID, video="h264") as session:
        frames = [frame async for frame in session.speak(noise(16_000), idle=True)]
    decoded = [decoder.decode(frame) for frame in frames]
    assert sum(not frame.idle for frame in frames) == 25
    assert all(pixels is not None and pixels.shape == (256, 256, 3) for pixels in decoded)


async def test_leaving_the_loop_cancels_the_rest(live: LiveServer) -> None:
    async with connect(live.http, avatar=GALLERY_ID) as session:
        async for _ in session.speak(noise(160_000)):
            break
        pcm = noise(5_000, seed=1)
        assert b"".join([f.audio async for f in session.speak(pcm)]) == pcm
        await session.ping()
        done = []
        async for event in session.events():
            done += [event.status] if isinstance(event, ResponseDone) else []
            if len(done) == 2:
                break
    assert done == ["cancelled", "completed"]


async def test_cancel_from_another_task_ends_the_iteration(live: LiveServer) -> None:
    async with connect(live.http, avatar=GALLERY_ID) as session:
        count = 0
        async for frame in session.speak(noise(320_000)):
            count += 1
            if count == 3:
                asyncio.get_running_loop().create_task(session.cancel())
            assert frame.epoch == 0
        assert count < 100
        async for frame in session.frames():
            assert frame.epoch == 1
            assert frame.idle
            assert frame.discontinuity
            break


async def test_cancel_is_not_held_up_by_frames_that_nobody_reads(live: LiveServer) -> None:
    async with connect(live.http, avatar=GALLERY_ID, max_frames=5) as session:
        await session.send_audio(noise(48_000))
        await session.commit()
        await asyncio.sleep(0.3)
        await asyncio.wait_for(session.cancel(), 3)


async def test_the_pieces_of_an_utterance_by_hand(live: LiveServer) -> None:
    async with connect(live.http, avatar=GALLERY_ID, video="none") as session:
        await session.set_state("listening")
        await session.send_audio(noise(8_000))
        dropped_ms = await session.clear()
        assert 0 <= dropped_ms <= 500
        await session.cancel()
        await session.send_audio(noise(8_000))
        committed = await session.commit()
        assert committed.duration_ms == 500
        shown = 0
        async for frame in session.frames(idle=False):
            await session.report_playback(frame)
            shown += 1
            if frame.last:
                break
        assert shown == 13
        assert await session.ping() < 5


async def test_more_audio_than_the_server_buffers_is_held_back_here(tmp_path: Path) -> None:
    config = make_config(tmp_path, max_buffered_input_ms=2_000, speech_lead_ms=100_000)
    pcm = noise(64_000)
    with running(config, load_painting_engine) as server:
        free: dict[str, Any] = {"video": "none", "playback": "none", "timeout_s": 10}
        async with connect(server.http, avatar=GALLERY_ID, **free) as session:
            frames = [frame async for frame in session.speak(pcm)]
        async with connect(server.http, avatar=GALLERY_ID, max_frames=2, timeout_s=0.5) as session:
            with pytest.raises(TimedOutError, match="read frames in another task"):
                await session.send_audio(noise(480_000))
    assert b"".join(frame.audio for frame in frames) == pcm


async def test_errors_of_the_server_are_exceptions(live: LiveServer) -> None:
    with pytest.raises(AvatarNotFoundError) as unknown:
        async with connect(live.http, avatar="nobody"):
            pass
    assert unknown.value.code == "avatar_not_found"
    assert "avatars.list()" in str(unknown.value)
    with pytest.raises(ServerError) as rate:
        async with connect(live.http, avatar=GALLERY_ID, rate=4_000):
            pass
    assert rate.value.code == "invalid_sample_rate"
    async with connect(live.http, avatar=GALLERY_ID) as session:
        with pytest.raises(ServerError) as empty:
            await session.commit()
        assert empty.value.code == "input_buffer_empty"
        with pytest.raises(ServerError) as immutable:
            await session.update(avatar_id="somebody-else")
        assert immutable.value.code == "immutable_field"
        await session.update(idle="freeze")
    with pytest.raises(ValueError, match="either avatar"):
        connect(live.http)


async def test_a_full_server_says_when_to_come_back(tmp_path: Path) -> None:
    with running(
        make_config(tmp_path, max_sessions=1, max_queued_sessions=0), load_painting_engine
    ) as server:
        async with connect(server.http, avatar=GALLERY_ID):
            once = Retry(attempts=1)
            with pytest.raises(CapacityError) as full:
                async with connect(server.http, avatar=GALLERY_ID, queue_timeout_s=0, retry=once):
                    pass
    assert full.value.code == "capacity"


async def test_nobody_there(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ConnectionFailedError, match="visavis serve"):
        async with connect(url, avatar="any", retry=Retry(attempts=2, first_s=0.01)):
            pass
    with pytest.raises(ConnectionFailedError, match="visavis serve"):
        await AvatarClient(url).avatars.list()
    with pytest.raises(TimedOutError):
        await AvatarClient(url).wait_ready(timeout_s=0.1)


async def test_the_end_of_a_session_reaches_everyone(tmp_path: Path) -> None:
    with running(make_config(tmp_path), load_painting_engine) as server:
        async with connect(server.http, avatar=GALLERY_ID) as session:
            server.loop.call_soon_threadsafe(server.server.begin_drain)
            with pytest.raises(SessionClosedError) as closed:
                async for _ in session.frames():
                    pass
            assert closed.value.code == "server_draining"
            assert closed.value.close_code == 1012
            with pytest.raises(SessionClosedError):
                await session.send_audio(b"ab")
            assert [event async for event in session.events()][-1].type == "error"


async def test_frames_have_one_reader(live: LiveServer) -> None:
    async with connect(live.http, avatar=GALLERY_ID) as session:
        async for _ in session.frames():
            with pytest.raises(AvatarError, match="one speak"):
                async for _ in session.frames():
                    pass
            break


async def test_close_with_drain_finishes_what_was_committed(live: LiveServer) -> None:
    pcm = noise(16_000)
    async with connect(live.http, avatar=GALLERY_ID, video="none") as session:
        await session.send_audio(pcm)
        await session.commit()
        await session.close(drain=True)
        frames = [frame async for frame in session.frames(idle=False)]
    assert b"".join(frame.audio for frame in frames) == pcm


async def test_avatars_over_http(live: LiveServer, tmp_path: Path) -> None:
    client = AvatarClient(live.http)
    await client.wait_ready(timeout_s=10)
    path = tmp_path / "me.jpg"
    path.write_bytes(encoded(drawn_face()))
    mine = await client.avatars.upload(path, name="Mé")
    assert mine.name == "Mé"
    assert not mine.builtin
    assert mine.id in [avatar.id for avatar in await client.avatars.list()]
    assert await client.avatars.get(mine.id) == mine
    assert (await client.avatars.image(mine.id))[:2] in (b"\xff\xd8", b"\x89P")
    async with client.connect(avatar=mine.id) as session:
        assert [frame async for frame in session.speak(noise(640))][0].response == 1
    await client.avatars.delete(mine.id)
    with pytest.raises(ServerError) as gone:
        await client.avatars.get(mine.id)
    assert (gone.value.code, gone.value.status) == ("avatar_not_found", 404)
    with pytest.raises(ServerError) as protected:
        await client.avatars.delete(GALLERY_ID)
    assert protected.value.code == "avatar_read_only"
    with pytest.raises(ServerError) as bad:
        await client.avatars.upload(b"no picture")
    assert bad.value.code == "invalid_image"
    assert (await client.capacity()).max == live.config.max_sessions


async def test_a_picture_in_the_session_itself(live: LiveServer) -> None:
    async with connect(live.http, image=encoded(drawn_face(), "PNG")) as session:
        assert session.settings.avatar_id is None
        frames = [frame async for frame in session.speak(noise(640))]
    assert frames[0].to_rgb().std() > 10


def test_without_asyncio(live: LiveServer) -> None:
    pcm = noise(16_000)
    pieces = [pcm[start : start + 3_000] for start in range(0, len(pcm), 3_000)]
    client = SyncAvatarClient(live.http)
    assert client.rest.list_avatars()[0].id == GALLERY_ID
    with client.connect(avatar=GALLERY_ID) as session:
        assert session.id.startswith("sess_")
        frames = list(session.speak(pieces))
        for _ in session.speak(noise(160_000)):
            break
        again = b"".join(frame.audio for frame in session.speak(pcm))
        session.send_audio(pcm)
        session.commit()
        session.cancel()
        assert session.ping() < 5
    assert b"".join(frame.audio for frame in frames) == pcm
    assert again == pcm


def test_errors_without_asyncio(live: LiveServer) -> None:
    with pytest.raises(ServerError, match="avatar_not_found"), connect_sync(live.http, avatar="x"):
        pass
    with connect_sync(live.http, avatar=GALLERY_ID) as session:
        with pytest.raises(ServerError, match="input_buffer_empty"):
            session.commit()
        session.close()
        with pytest.raises(SessionClosedError):
            session.send_audio(b"ab")
