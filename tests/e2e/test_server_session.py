"""One client and a real server: what is said comes back, whole, in order, and ends once."""

from __future__ import annotations

import asyncio
import base64
import io
import re

import av
import httpx
import numpy as np
import pytest
from live_server import LiveServer, Media, client_of, drawn_face, encoded, noise
from PIL import Image

FRAME_US = 40_000


@pytest.mark.parametrize(
    ("rate", "samples"),
    [(16_000, 16_000), (16_000, 1), (24_000, 30_001), (48_000, 48_000), (22_050, 9_999)],
)
async def test_audio_comes_back_byte_for_byte_with_a_frame_each_40_ms(
    live: LiveServer, rate: int, samples: int
) -> None:
    pcm = noise(samples)
    async with client_of(live) as client:
        settings = await client.configure(input_audio={"format": "pcm16", "rate": rate})
        assert settings["session"]["input_audio"]["rate"] == rate
        await client.send_audio(pcm)
        await client.send("input_audio_buffer.commit")
        done = await client.until("response.done")
    frames = client.speech()
    assert b"".join(frame.audio for frame in frames) == pcm
    assert len(frames) == -(-samples * 25 // rate)
    assert done["status"] == "completed"
    assert done["sent_ms"] == done["generated_ms"] == 40 * len(frames)
    assert [bool(f.flags & 2) for f in frames] == [True] + [False] * (len(frames) - 1)
    assert [bool(f.flags & 4) for f in frames] == [False] * (len(frames) - 1) + [True]


async def test_events_come_in_the_order_of_the_protocol(live: LiveServer) -> None:
    async with client_of(live) as client:
        assert client.socket.subprotocol == "avatar.v1"
        created = await client.until("session.created")
        assert created["protocol"] == 1
        assert created["limits"]["max_message_bytes"] == 1 << 20
        await client.configure()
        await client.send_audio(noise(8000))
        await client.send("input_audio_buffer.commit", event_id="mine")
        await client.until("response.done")
    order = [
        item["type"] if isinstance(item, dict) else "frame"
        for item in client.log
        if isinstance(item, dict) or not item.idle
    ]
    expected = ["response.created", "response.started", "frame", "response.done"]
    assert [name for name in dict.fromkeys(order) if name in expected] == expected
    assert order.count("response.done") == 1
    committed = client.of_type("input_audio_buffer.committed")[0]
    assert committed["duration_ms"] == 500
    assert committed["source_event_id"] == "mine"
    ids = [event["event_id"] for event in client.events]
    assert len(set(ids)) == len(ids)


async def test_timeline_never_jumps_across_idle_and_speech(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        await client.until_media(speech=False)
        for _ in range(2):
            await client.send_audio(noise(6400))
            await client.send("input_audio_buffer.commit")
            await client.until("response.done")
            await client.until_media(speech=False)
    assert [f.pts_us for f in client.media] == [i * FRAME_US for i in range(len(client.media))]
    assert [f.seq for f in client.media] == list(range(len(client.media)))
    assert {f.response for f in client.media} == {0, 1, 2}
    states = [event["state"] for event in client.of_type("avatar.state_changed")]
    assert states == ["speaking", "idle", "speaking", "idle"]


async def test_idle_frames_keep_real_time(live: LiveServer) -> None:
    loop = asyncio.get_running_loop()
    async with client_of(live) as client:
        await client.configure()
        await client.until_media(speech=False)
        start = loop.time()
        while loop.time() - start < 1.0:
            await client.read()
    played = len(client.media) * FRAME_US / 1e6
    assert 0.9 <= played <= 1.5


async def test_speech_is_paced_to_a_chunk_ahead(live: LiveServer) -> None:
    loop = asyncio.get_running_loop()
    async with client_of(live) as client:
        await client.configure()
        await client.send_audio(noise(48_000))
        await client.send("input_audio_buffer.commit")
        first = await client.until_media(speech=True)
        start = loop.time()
        await client.until("response.done")
        elapsed = loop.time() - start
    played = (client.speech()[-1].pts_us - first.pts_us) / 1e6
    assert played - 1.4 <= elapsed <= played + 0.5


@pytest.mark.parametrize("video", ["h264", "jpeg", "none"])
async def test_every_video_format_decodes(live: LiveServer, video: str) -> None:
    async with client_of(live) as client:
        settings = await client.configure(output={"video": video})
        await client.send_audio(noise(32_000))
        await client.send("input_audio_buffer.commit")
        await client.until("response.done")
    output = settings["session"]["output"]
    assert (output["width"], output["height"], output["fps"]) == (256, 256, 25)
    # A busy machine leaves out pictures that would come late.
    frames = [frame for frame in client.media if frame.video]
    if video == "none":
        assert not frames
    elif video == "jpeg":
        assert Image.open(io.BytesIO(frames[0].video)).size == (256, 256)
        assert all(f.flags & 1 for f in frames)
    else:
        assert output["codec"].startswith("avc1.42")
        assert frames[0].flags & 1
        assert _decoded_h264(frames) == len(frames)


def _decoded_h264(frames: list[Media]) -> int:
    decoder = av.CodecContext.create("h264", "r")
    packets = [av.Packet(frame.video) for frame in frames]
    pictures = [p for packet in packets for p in decoder.decode(packet)]
    pictures += decoder.decode(None)
    assert all((p.width, p.height) == (256, 256) for p in pictures)
    return len(pictures)


async def test_cancel_ends_the_response_once_and_begins_an_epoch(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure(output={"video": "h264"})
        await client.send_audio(noise(160_000))
        await client.send("input_audio_buffer.commit")
        await client.until_media(speech=True)
        await client.send("response.cancel")
        cleared = await client.until("output.cleared")
        done = await client.until("response.done")
        assert cleared["epoch"] == 1
        assert done["status"] == "cancelled"
        after = await client.until_media(speech=False)
        assert after.epoch == 1
        assert after.flags & 1
        assert after.flags & 16
        assert after.pts_us == cleared["from_pts_us"]
        # The next utterance is whole and knows nothing of the cancelled one.
        pcm = noise(12_345, seed=1)
        await client.send_audio(pcm)
        await client.send("input_audio_buffer.commit")
        again = await client.until("response.done")
    assert again["status"] == "completed"
    assert b"".join(f.audio for f in client.speech(2)) == pcm
    assert len(client.of_type("response.done")) == 2


async def test_cancel_when_nothing_is_said_is_no_error(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        await client.send("response.cancel")
        await client.until("output.cleared")
        await client.send("response.cancel", response_id="resp_unknown")
        await client.send("session.ping", t=3)
        assert (await client.until("session.pong"))["t"] == 3
    assert not client.of_type("error")


async def test_utterances_queue_and_finish_in_order(live: LiveServer) -> None:
    parts = [noise(5_000, seed=s) for s in range(3)]
    async with client_of(live) as client:
        await client.configure()
        for number, pcm in enumerate(parts):
            text = base64.b64encode(pcm).decode()
            name = f"part{number}"
            await client.send("input_audio_buffer.append", audio=text, response_id=name)
            await client.send("input_audio_buffer.commit", response_id=name)
        for _ in parts:
            await client.until("response.done")
    done = client.of_type("response.done")
    assert [event["response_id"] for event in done] == ["part0", "part1", "part2"]
    for number, pcm in enumerate(parts):
        assert b"".join(f.audio for f in client.speech(number + 1)) == pcm


async def test_live_audio_starts_before_it_is_committed(live: LiveServer) -> None:
    pcm = noise(32_000)
    async with client_of(live) as client:
        await client.configure()
        await client.send_audio(pcm[:40_000], piece=640)
        await client.until_media(speech=True)
        await client.send_audio(pcm[40_000:], piece=640)
        await client.send("input_audio_buffer.commit")
        await client.until("response.done")
    assert b"".join(f.audio for f in client.speech()) == pcm


async def test_playback_updates_tell_what_was_heard(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        await client.send("playback.update", pts_us=0, seq=0)
        await client.send_audio(noise(16_000))
        await client.send("input_audio_buffer.commit")
        last = await client.until_media(speech=True)
        while not last.flags & 4:
            last = await client.until_media(speech=True)
        await client.send("playback.update", pts_us=last.pts_us, seq=last.seq)
        done = await client.until("response.done")
    assert done["played_ms"] == done["sent_ms"] == 1000


async def test_underruns_that_a_client_reports_are_counted_once(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        for _ in range(4):
            await client.until_media(speech=False)
        before = underruns(live)
        for told in (2, 2, 3, 0, 1, -5, 0):
            await client.send("playback.update", pts_us=0, underruns=told)
        await client.send("session.ping")
        await client.until("session.pong")
        assert underruns(live) - before == 4
        await client.send("playback.update", pts_us=0, underruns=10**300)
        await client.send("session.ping")
        await client.until("session.pong")
        assert underruns(live) - before < 1_000


def underruns(server: LiveServer) -> float:
    text = httpx.get(f"{server.http}/metrics").text
    (line,) = re.findall(r"^visavis_client_underruns_total (\S+)$", text, re.MULTILINE)
    return float(line)


async def test_without_credit_pictures_stop_and_then_sound(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        await client.send("playback.update", pts_us=0)
        await client.send_audio(noise(160_000))
        await client.send("input_audio_buffer.commit")
        with pytest.raises(TimeoutError):
            await client.until("response.done", timeout_s=3.0)
    pictures = [frame for frame in client.media if frame.video]
    assert pictures[-1].pts_us <= 1_500_000 + FRAME_US
    assert client.media[-1].pts_us <= 2 * 1_500_000 + FRAME_US
    dropped = sum(event["frames"] for event in client.of_type("output.dropped"))
    assert 0 < dropped <= len(client.media) - len(pictures)


async def test_image_in_the_session_itself(live: LiveServer) -> None:
    image = base64.b64encode(encoded(drawn_face(), "PNG")).decode()
    async with client_of(live) as client:
        settings = await client.configure(image=image)
        assert settings["session"]["avatar_id"] is None
        frame = await client.until_media(speech=False)
    pixels = np.asarray(Image.open(io.BytesIO(frame.video)))
    assert pixels.shape == (256, 256, 3)
    assert pixels.std() > 10


@pytest.mark.parametrize(("fps", "rate"), [(12.5, 16_000), (20, 24_000), (5, 48_000)])
async def test_pictures_come_at_the_wanted_rate_and_sound_stays_whole(
    live: LiveServer, fps: float, rate: int
) -> None:
    pcm = noise(rate * 2)
    async with client_of(live) as client:
        output = {"video": "jpeg", "fps": fps}
        settings = await client.configure(input_audio={"rate": rate}, output=output)
        assert settings["session"]["output"]["fps"] == fps
        await client.send_audio(pcm)
        await client.send("input_audio_buffer.commit")
        await client.until("response.done")
    frames = client.speech()
    assert b"".join(frame.audio for frame in frames) == pcm
    assert [f.pts_us for f in client.media] == [i * FRAME_US for i in range(len(client.media))]
    assert sum(bool(frame.video) for frame in frames) == 2 * fps
    assert frames[0].video
    assert not client.of_type("output.dropped")


@pytest.mark.parametrize(
    ("output", "size"),
    [({"width": 128}, (128, 128)), ({"height": 384, "width": 384}, (384, 384))],
)
async def test_pictures_have_the_wanted_size(
    live: LiveServer, output: dict[str, int], size: tuple[int, int]
) -> None:
    async with client_of(live) as client:
        settings = await client.configure(output={"video": "h264", **output})
        told = settings["session"]["output"]
        assert (told["height"], told["width"]) == size
        frames = [await client.until_media(speech=False) for _ in range(4)]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    pictures = [p for f in frames for p in decoder.decode(av.Packet(f.video))]  # type: ignore[attr-defined]
    assert {(p.height, p.width) for p in pictures} == {size}


async def test_what_cannot_be_had_is_refused_with_what_can(live: LiveServer) -> None:
    async with client_of(live) as client:
        created = await client.until("session.created")
        assert created["output"]["fps"] == [25, 20, 15, 12.5, 10, 5]
        assert created["output"]["max_width"] == 512
        for output, param in (
            ({"fps": 30}, "session.output.fps"),
            ({"width": 4096}, "session.output.width"),
            ({"width": 256, "height": 144}, "session.output.height"),
        ):
            await client.send(
                "session.update", session={"avatar_id": "drawn", "output": output}, event_id="no"
            )
            error = (await client.until("error"))["error"]
            assert (error["code"], error["param"]) == ("unsupported_value", param)
            assert error["event_id"] == "no"
        await client.configure()


async def test_a_prompt_that_is_not_followed_is_told(live: LiveServer) -> None:
    async with client_of(live) as client:
        created = await client.until("session.created")
        settings = await client.configure(prompt="smiles all the time")
    assert created["features"]["prompt"] is False
    (warning,) = [w for w in settings["session"]["warnings"] if "prompt" in w]
    assert "not followed" in warning


async def test_close_with_drain_finishes_what_was_committed(live: LiveServer) -> None:
    async with client_of(live) as client:
        await client.configure()
        await client.send_audio(noise(16_000))
        await client.send("input_audio_buffer.commit")
        await client.send("session.close", drain=True)
        done = await client.until("response.done")
        assert done["status"] == "completed"
        await client.socket.wait_closed()
    assert client.socket.close_code == 1000


@pytest.mark.parametrize("idle", ["loop", "freeze"])
async def test_idle_policies_that_repeat(live: LiveServer, idle: str) -> None:
    async with client_of(live) as client:
        await client.configure(idle=idle)
        for _ in range(20):
            await client.until_media(speech=False)
    assert [f.pts_us for f in client.media] == [i * FRAME_US for i in range(len(client.media))]
