"""What one key may take of what all share: minutes, requests, uploads, the line of renderings."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live_server import GALLERY_ID, Client, LiveServer, drawn_face, encoded, make_config, running
from stand_in import load_painting_engine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BRIEF = "vv_brief-0123456789abcdef"
NARROW = "vv_narrow-0123456789abcdef"
USUAL = "vv_usual-0123456789abcdef"
KEYS = f"""
[keys.brief]
key = "{BRIEF}"
minutes_per_day = 0.15
[keys.narrow]
key = "{NARROW}"
requests_per_minute = 120
max_avatars = 1
max_queued_videos = 1
[keys.usual]
key = "{USUAL}"
"""
http = httpx.Client(timeout=60.0)


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("quotas")
    keys = folder / "keys.toml"
    keys.write_text(KEYS)
    with running(make_config(folder, api_keys_file=keys), load_painting_engine) as server:
        yield server


async def to_the_end(server: LiveServer, key: str) -> Client:
    async with connect(
        f"{server.ws}/v1/realtime/avatar", additional_headers=as_key(key), compression=None
    ) as socket:
        client = Client(socket)
        await client.configure(output={"video": "none"}, idle="freeze")
        with pytest.raises(ConnectionClosed):
            await client.until("never")
    return client


async def test_sessions_beside_each_other_cannot_overdraw_a_keys_minutes(
    shared: LiveServer,
) -> None:
    async with connect(
        f"{shared.ws}/v1/realtime/avatar", additional_headers=as_key(USUAL), compression=None
    ) as socket:
        # The portrait is prepared for all.
        await Client(socket).configure(output={"video": "none"}, idle="freeze")
    start_s = asyncio.get_running_loop().time()
    clients = await asyncio.gather(*(to_the_end(shared, BRIEF) for _ in range(3)))
    took_s = asyncio.get_running_loop().time() - start_s
    # Nine seconds of all together; each alone would have been told nine.
    assert took_s < 8.0
    for client in clients:
        assert client.socket.close_code == 4429
        assert client.socket.close_reason == "quota_exceeded"
        assert client.events[-1]["error"]["retry_after_s"] > 0
        warnings = client.of_type("session.expiring")
        assert warnings
        assert {warning["reason"] for warning in warnings} == {"max_duration"}
    async with connect(
        f"{shared.ws}/v1/realtime/avatar", additional_headers=as_key(BRIEF), compression=None
    ) as socket:
        again = Client(socket)
        await again.send("session.update", session={"avatar_id": GALLERY_ID})
        error = (await again.until("error"))["error"]
        assert error["code"] == "quota_exceeded"


def test_a_key_may_have_its_share_of_uploads(shared: LiveServer) -> None:
    address = f"{shared.http}/v1/avatars"
    photo = {"file": ("me.jpg", encoded(drawn_face()))}
    first = http.post(address, headers=as_key(NARROW), files=photo)
    assert first.status_code == 201
    second = http.post(address, headers=as_key(NARROW), files=photo)
    assert second.status_code == 429
    error = second.json()["error"]
    assert error["code"] == "quota_exceeded"
    assert "delete some" in error["message"]
    assert http.post(address, headers=as_key(USUAL), files=photo).status_code == 201
    one = f"{address}/{first.json()['id']}"
    assert http.delete(one, headers=as_key(NARROW)).status_code == 204
    assert http.post(address, headers=as_key(NARROW), files=photo).status_code == 201


def test_a_key_cannot_fill_the_line_of_renderings(shared: LiveServer) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * 16_000 * 20))

    def ask(key: str) -> Any:
        return http.post(
            f"{shared.http}/v1/videos",
            headers=as_key(key),
            data={"avatar_id": GALLERY_ID},
            files={"audio": ("a.wav", buffer.getvalue())},
        )

    answers = [ask(NARROW) for _ in range(4)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[-1].json()["error"]["code"] == "quota_exceeded"
    assert ask(USUAL).status_code == 202
    for key in (NARROW, USUAL):
        for job in http.get(f"{shared.http}/v1/videos", headers=as_key(key)).json()["data"]:
            http.delete(f"{shared.http}/v1/videos/{job['id']}", headers=as_key(key))


def test_requests_have_a_rate_for_each_key(shared: LiveServer) -> None:
    address = f"{shared.http}/v1/models"
    answers = [http.get(address, headers=as_key(NARROW)) for _ in range(60)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    error = refused[0].json()["error"]
    assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
    assert "requests_per_minute" in error["message"]
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert http.get(address, headers=as_key(USUAL)).status_code == 200
