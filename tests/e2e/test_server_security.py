"""A server with keys: who gets in, what a token may do, and that no secret ever comes out."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from live_server import (
    GALLERY_ID,
    Client,
    LiveServer,
    drawn_face,
    encoded,
    make_config,
    running,
)
from stand_in import load_painting_engine
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from visavis.server.logging import configure_logging

KEY = "vv_canary-app-0123456789"
OTHER = "vv_canary-other-0123456789"
SPENT = "vv_canary-spent-0123456789"
TALKER = "vv_canary-talker-0123456789"
ADMIN = "vv_canary-admin-0123456789"
KEYS = f"""
[keys.app]
key = "{KEY}"
max_sessions = 3
[keys.other]
key = "{OTHER}"
minutes_per_day = 10
[keys.spent]
key = "{SPENT}"
minutes_per_day = 1
[keys.talker]
key = "{TALKER}"
scopes = ["realtime"]
[keys.ops]
key = "{ADMIN}"
scopes = ["admin", "realtime"]
"""
http = httpx.Client(timeout=60.0)


def call(method: str, address: str, **options: Any) -> httpx.Response:
    """A request in passing; the server has a thread of its own."""
    return http.request(method, address, **options)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, io.StringIO]]:
    """A server with keys, and everything that it logs, at the most talkative level."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys.toml"
    keys.write_text(KEYS)
    config = make_config(
        folder, api_keys_file=keys, admin_port=0, require_consent=True, drain_timeout_s=0.2
    )
    usage = {"day": int(time.time() // 86_400), "seconds": {"spent": 90.0}}
    config.data_dir.mkdir(parents=True)
    (config.data_dir / "usage.json").write_text(json.dumps(usage))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("json", "debug")
    stream = io.StringIO()
    formatter = root.handlers[0].formatter
    root.handlers[:] = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(formatter)
    try:
        with running(config, load_painting_engine) as server:
            yield server, stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


@pytest.fixture
def server(guarded: tuple[LiveServer, io.StringIO]) -> LiveServer:
    return guarded[0]


def bearer(key: str = KEY, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


def url(server: LiveServer) -> str:
    return f"{server.ws}/v1/realtime/avatar"


def token(server: LiveServer, key: str = KEY, **claims: Any) -> str:
    answer = http.post(
        f"{server.http}/v1/realtime/client_secrets", headers=bearer(key), json=claims
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["expires_at"] > 1e9
    return str(answer.json()["value"])


async def to_the_end(client: Client) -> Close:
    """Read everything; how the server closed."""
    try:
        while True:
            await client.read()
    except ConnectionClosed:
        code, reason = client.socket.close_code, client.socket.close_reason
    return Close(code or 0, reason or "")


async def refusal(server: LiveServer, **options: Any) -> tuple[int, str]:
    """Connect as a browser would, and return the close code and the error's code."""
    options.setdefault("subprotocols", ["avatar.v1"])
    async with connect(url(server), compression=None, **options) as socket:
        client = Client(socket)
        closed = await to_the_end(client)
        (error,) = client.of_type("error")
        return closed.code, error["error"]["code"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (4401, "missing_token")),
        ({"additional_headers": bearer("vv_wrong-0123456789")}, (4401, "invalid_token")),
        ({"subprotocols": ["avatar.v1", "avatar.auth.a.b.c"]}, (4401, "invalid_token")),
        (
            {"additional_headers": bearer(), "origin": "https://evil.example"},
            (4403, "origin_not_allowed"),
        ),
    ],
    ids=["none", "wrong key", "wrong token", "origin"],
)
async def test_a_browser_is_told_after_the_handshake(
    server: LiveServer, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert await refusal(server, **options) == expected


async def test_a_server_that_asks_for_json_gets_an_http_answer(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(server), additional_headers={"Accept": "application/json"}):
            pass
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert json.loads(response.body or b"")["error"]["code"] == "missing_token"
    plain = call("GET", f"{server.http}/v1/realtime/avatar")
    assert (plain.status_code, plain.json()["error"]["code"]) == (426, "upgrade_required")


async def test_a_page_connects_with_a_token_that_is_not_echoed(server: LiveServer) -> None:
    secret = token(server, avatar_id=GALLERY_ID, origin=server.http, max_duration_s=100)
    offered: list[Any] = ["avatar.v1", f"avatar.auth.{secret}"]
    async with connect(
        url(server), subprotocols=offered, origin=server.http, compression=None
    ) as socket:
        assert socket.subprotocol == "avatar.v1"
        assert socket.response is not None
        assert secret not in str(socket.response.headers)
        client = Client(socket)
        created = await client.until("session.created")
        assert created["limits"]["max_session_s"] == 100
        await client.configure()
        listed = call("GET", f"{admin(server)}/v1/realtime/sessions", headers=bearer(ADMIN)).json()
        (entry,) = [s for s in listed["data"] if s["id"] == created["session_id"]]
        assert (entry["key"], entry["avatar_id"]) == ("app", GALLERY_ID)


async def test_a_token_for_one_avatar_opens_no_other(server: LiveServer) -> None:
    secret = token(server, avatar_id=GALLERY_ID)
    offered: list[Any] = ["avatar.v1", f"avatar.auth.{secret}"]
    async with connect(url(server), subprotocols=offered, compression=None) as socket:
        client = Client(socket)
        await client.send("session.update", session={"avatar_id": "somebody-else"})
        error = (await client.until("error"))["error"]
    assert error["code"] == "not_permitted"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"avatar_id": "../x"}, 400),
        ({"avatar_id": "nobody"}, 404),
        ({"origin": "not an origin"}, 422),
        ({"max_duration_s": -1}, 422),
        ({"ttl_s": 1e9}, 422),
        ({"unknown": 1}, 422),
        ([], 422),
        ("{", 400),
    ],
)
def test_wrong_wishes_for_a_token(server: LiveServer, body: Any, status: int) -> None:
    data = body if isinstance(body, str) else json.dumps(body)
    answer = http.post(f"{server.http}/v1/realtime/client_secrets", headers=bearer(), content=data)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_token_is_no_key(server: LiveServer) -> None:
    secret = bearer(token(server))
    for method, path in (
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/v1/avatars"),
        ("DELETE", f"/v1/avatars/{GALLERY_ID}"),
        ("GET", "/v1/videos"),
    ):
        answer = http.request(method, server.http + path, headers=secret)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_permitted")
    assert http.get(f"{server.http}/v1/avatars", headers=secret).status_code == 200


async def test_minutes_are_announced_and_used_up(server: LiveServer) -> None:
    async with connect(url(server), additional_headers=bearer(OTHER), compression=None) as socket:
        created = await Client(socket).until("session.created")
        assert 0 < created["limits"]["max_session_s"] <= 600
    async with connect(url(server), additional_headers=bearer(SPENT), compression=None) as socket:
        client = Client(socket)
        await client.send("session.update", session={"avatar_id": GALLERY_ID})
        error = (await client.until("error"))["error"]
        assert error["code"] == "quota_exceeded"
        assert error["retry_after_s"] > 0
        assert (await to_the_end(client)).code == 4429


def test_uploads_belong_to_their_key_and_need_consent(server: LiveServer) -> None:
    files = {"file": ("me.jpg", encoded(drawn_face()), "image/jpeg")}

    def post(**data: str) -> httpx.Response:
        return http.post(f"{server.http}/v1/avatars", files=files, data=data, headers=bearer())

    for refused in (post(), post(consent="false")):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "consent_required")
    avatar = post(consent="true").json()
    assert avatar["consent"] is True
    one = f"{server.http}/v1/avatars/{avatar['id']}"
    for path in (one, f"{one}/image"):
        assert http.get(path, headers=bearer()).status_code == 200
        assert http.get(path, headers=bearer(OTHER)).status_code == 404
        assert http.get(path, headers=bearer(ADMIN)).status_code == 200
        assert http.get(path).status_code == 401
    listed = http.get(f"{server.http}/v1/avatars", headers=bearer(OTHER)).json()["data"]
    assert avatar["id"] not in [a["id"] for a in listed]
    assert http.delete(one, headers=bearer(OTHER)).status_code == 404
    assert http.delete(one, headers=bearer()).status_code == 204


async def test_a_picture_of_ones_own_needs_consent_as_an_upload_does(server: LiveServer) -> None:
    picture = {"image": base64.b64encode(encoded(drawn_face(256))).decode()}
    async with connect(url(server), additional_headers=bearer(), compression=None) as socket:
        client = Client(socket)
        for refused in (picture, picture | {"consent": False}):
            await client.send("session.update", session=refused)
            error = (await client.until("error"))["error"]
            assert (error["code"], error["param"]) == ("consent_required", "session.consent")
        await client.configure(**picture, consent=True)


@pytest.mark.parametrize("caller", ["key", "token"])
async def test_a_picture_of_ones_own_is_for_those_who_may_upload(
    server: LiveServer, caller: str
) -> None:
    picture = {"image": base64.b64encode(encoded(drawn_face(256))).decode(), "consent": True}
    credential = TALKER if caller == "key" else token(server)
    headers = bearer(credential)
    async with connect(url(server), additional_headers=headers, compression=None) as socket:
        client = Client(socket)
        await client.send("session.update", session=picture)
        error = (await client.until("error"))["error"]
        assert error["code"] == "not_permitted"
        assert "'avatars'" in error["message"]
    async with connect(url(server), additional_headers=headers, compression=None) as socket:
        await Client(socket).configure()


def test_built_in_portraits_and_health_need_no_key(server: LiveServer) -> None:
    for path in (
        f"/v1/avatars/{GALLERY_ID}/image",
        "/health/ready",
        "/v1/realtime/capacity",
        "/v1/asyncapi.json",
    ):
        assert http.get(server.http + path).status_code == 200
    for path in ("/v1/avatars", "/v1/models", "/v1/videos"):
        answer = http.get(server.http + path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_token")


def test_other_pages_cannot_post_forms(server: LiveServer) -> None:
    files = {"file": ("me.jpg", encoded(drawn_face()), "image/jpeg")}
    headers = bearer(Origin="https://evil.example")
    answer = http.post(f"{server.http}/v1/avatars", files=files, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")


def admin(server: LiveServer) -> str:
    return f"http://127.0.0.1:{server.server.admin_port}"


async def test_administration_is_on_its_own_port(server: LiveServer) -> None:
    for path in ("/metrics", "/v1/realtime/sessions"):
        assert call("GET", server.http + path, headers=bearer(ADMIN)).status_code == 404
    assert "visavis_sessions_active" in call("GET", f"{admin(server)}/metrics").text
    assert call("GET", f"{admin(server)}/health/ready").status_code == 200
    sessions = f"{admin(server)}/v1/realtime/sessions"
    assert call("GET", sessions).status_code == 401
    assert call("GET", sessions, headers=bearer()).status_code == 403
    assert call("DELETE", f"{sessions}/none", headers=bearer(ADMIN)).status_code == 404
    async with connect(url(server), additional_headers=bearer(), compression=None) as socket:
        client = Client(socket)
        session_id = (await client.until("session.created"))["session_id"]
        await client.configure()
        async with httpx.AsyncClient() as operator:
            ended = await operator.delete(f"{sessions}/{session_id}", headers=bearer(ADMIN))
        assert ended.status_code == 204
        assert await to_the_end(client) == Close(4403, "session_ended")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "", 422),
        (b"hello", "text/plain", 422),
        (b"hello", "multipart/form-data", 400),
        (b"hello", "multipart/form-data; boundary=x", 400),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
         "multipart/form-data; boundary=x", 422),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\ntext\r\n--x--\r\n",
         "multipart/form-data; boundary=x", 400),
        (b"--x\r\n" + b"A" * 20_000 + b": b\r\n\r\n", "multipart/form-data; boundary=x", 400),
        (b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % i
                  for i in range(100)) + b"--x--\r\n", "multipart/form-data; boundary=x", 400),
    ],
)  # fmt: skip
def test_malformed_forms_are_refused(
    server: LiveServer, content: bytes, kind: str, status: int
) -> None:
    answer = http.post(
        f"{server.http}/v1/avatars", content=content, headers=bearer(**{"Content-Type": kind})
    )
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


def test_bodies_without_end_are_cut_off(server: LiveServer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(64 << 10)

    for path in ("/v1/realtime/client_secrets", "/v1/avatars"):
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        try:
            answer = http.post(server.http + path, content=endless(), headers=bearer(**kind))
        except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            continue
        assert answer.status_code in (400, 413)


async def test_no_secret_comes_out(guarded: tuple[LiveServer, io.StringIO]) -> None:
    """Last in the file: the log holds what every test above did."""
    server, stream = guarded
    secret = token(server)
    wrong = "vv_canary-wrong-0123456789"
    answers = [
        call("GET", server.http + path, headers=headers)
        for path in ("/v1/avatars", "/v1/videos", f"/v1/{wrong}", f"/v1/avatars/{GALLERY_ID}")
        for headers in (bearer(), bearer(wrong), bearer(secret), bearer(secret + "x"))
    ]
    answers.append(
        call(
            "POST",
            f"{server.http}/v1/realtime/client_secrets",
            headers=bearer(),
            json={"avatar_id": 1},
        )
    )
    for credential in (KEY, wrong, secret, secret[:-4]):
        offered: list[Any] = ["avatar.v1", f"avatar.auth.{credential}"]
        async with connect(url(server), subprotocols=offered, compression=None) as socket:
            assert "canary" not in str(socket.response)
            with contextlib.suppress(ConnectionClosed):
                await socket.send('{"type": "session.update"}')
                while True:
                    message = json.loads(await socket.recv())
                    assert "canary" not in str(message)
                    if message["type"] == "error":
                        break
    told = "".join(str(a.headers) + a.text for a in answers)
    assert "canary-app" not in told
    assert secret not in told
    metrics = call("GET", f"{admin(server)}/metrics").text
    for text in (stream.getvalue(), metrics):
        assert len(text) > 1000
        assert "canary" not in text
        assert secret not in text
        assert "eyJ" not in text
