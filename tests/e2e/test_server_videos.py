"""Renderings over HTTP: asked for, watched, fetched; with what the file says of itself."""

from __future__ import annotations

import io
import json
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest
from live_server import GALLERY_ID, LiveServer, make_config, noise, running
from stand_in import load_painting_engine

from visavis.server.replica import file_name

http = httpx.Client(timeout=60.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(
        tmp_path_factory.mktemp("videos"), watermark="AI", max_video_s=20, max_videos=2
    )
    with running(config, load_painting_engine) as live:
        yield live


def speech(seconds: float, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(noise(round(seconds * rate)))
    return buffer.getvalue()


def ask(server: LiveServer, audio: bytes, **fields: str) -> httpx.Response:
    files = {"audio": ("speech", audio)}
    data = {"avatar_id": GALLERY_ID, **fields}
    return http.post(f"{server.http}/v1/videos", files=files, data=data)


def finished(server: LiveServer, video_id: str) -> dict[str, object]:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        video: dict[str, object] = http.get(f"{server.http}/v1/videos/{video_id}").json()
        if video["status"] in ("completed", "failed"):
            return video
        assert 0 <= int(str(video["progress"])) < 100
        time.sleep(0.05)
    raise AssertionError("the video did not end")


def test_a_video_is_made_fetched_and_deleted(server: LiveServer) -> None:
    answer = ask(server, speech(3.0), seed="7")
    assert answer.status_code == 202
    video = finished(server, answer.json()["id"])
    assert (video["status"], video["progress"], video["seed"]) == ("completed", 100, 7)
    one = f"{server.http}/v1/videos/{video['id']}"
    content = http.get(f"{one}/content")
    assert content.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(content.content)) as file:
        tags = dict(file.metadata)
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(file.streams.video[0])]
    facts = json.loads(tags["comment"])
    assert facts["synthetic"] is True
    assert facts["model"] == "embedded"
    assert facts["software"].startswith("visavis ")
    assert facts["created"].startswith("20")
    assert len(frames) == video["frames"] == 75
    # White letters on the portrait's flat corner.
    corner = frames[0][-20:, -40:]
    assert int(corner.max()) - int(corner.min()) > 60
    (folder,) = (server.config.data_dir / "videos").glob(f"*/{video['id']}")
    assert not any(folder.glob("speech"))
    assert http.delete(one).status_code == 204
    assert http.get(one).status_code == 404
    assert not folder.exists()


@pytest.mark.parametrize(
    ("audio", "why"),
    [
        (b"this is no sound", "FFmpeg cannot read it"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n", "cannot read it"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "cannot read it"),
        (speech(21, 8000), "longer than 20 s"),
    ],
    ids=["garbage", "playlist", "concat", "long"],
)
def test_what_cannot_be_spoken_is_explained(server: LiveServer, audio: bytes, why: str) -> None:
    video = finished(server, ask(server, audio).json()["id"])
    assert video["status"] == "failed"
    error = video["error"]
    assert isinstance(error, dict)
    assert why in error["message"]
    assert str(server.config.data_dir) not in error["message"]
    content = http.get(f"{server.http}/v1/videos/{video['id']}/content")
    assert (content.status_code, content.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("fields", "audio", "status"),
    [
        ({"avatar_id": "nobody"}, b"x", 404),
        ({"avatar_id": "../../etc"}, b"x", 400),
        ({"avatar_id": ""}, b"x", 422),
        ({"seed": "-1"}, b"x", 422),
        ({"seed": "1e3"}, b"x", 422),
        ({}, b"", 422),
    ],
)
def test_wrong_wishes_are_refused_at_once(
    server: LiveServer, fields: dict[str, str], audio: bytes, status: int
) -> None:
    answer = ask(server, audio, **fields)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


def test_the_queue_is_bounded_and_old_videos_go(server: LiveServer) -> None:
    answers = [ask(server, speech(10.0)) for _ in range(14)]
    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert refused[0].json()["error"]["code"] == "capacity"
    assert int(refused[0].headers["Retry-After"]) > 0
    # A fast machine has made some already, and forgotten the oldest when the next were asked for.
    for job in http.get(f"{server.http}/v1/videos").json()["data"]:
        assert http.delete(f"{server.http}/v1/videos/{job['id']}").status_code == 204
    for _ in range(3):
        finished(server, ask(server, b"no sound").json()["id"])
    assert len(http.get(f"{server.http}/v1/videos").json()["data"]) <= 2


def test_files_of_an_earlier_process_are_gone_and_those_of_other_replicas_stay(
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path, replica_id="pod/1")
    videos = config.data_dir / "videos"
    left = videos / file_name("pod/1") / "video-old" / "video.mp4"
    others = videos / file_name("pod/2") / "video-new" / "video.mp4"
    for path in (left, others):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    with running(config, load_painting_engine) as live:
        assert http.get(f"{live.http}/v1/videos").json()["data"] == []
        assert not left.exists()
        video = finished(live, ask(live, speech(0.2)).json()["id"])
        assert video["status"] == "completed"
    # What a replica made goes with it, and nothing else.
    assert [path for path in videos.rglob("*") if path.is_file()] == [others]
