"""Avatars over HTTP, health, metrics, and the page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, client_of, drawn_face, encoded, make_config, noise, running
from PIL import Image
from stand_in import load_painting_engine
from websockets.asyncio.client import connect
from websockets.typing import Origin

# A loaded machine may take long to answer; a test is not the place to judge that.
http = httpx.Client(timeout=60.0)


def upload(live: LiveServer, data: bytes, name: str = "Me") -> httpx.Response:
    files = {"file": ("me.jpg", data, "image/jpeg")}
    return http.post(f"{live.http}/v1/avatars", files=files, data={"name": name})


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_upload_list_show_delete(live: LiveServer, image_format: str) -> None:
    answer = upload(live, encoded(drawn_face(800), image_format))
    assert answer.status_code == 201
    avatar = answer.json()
    assert avatar["name"] == "Me"
    assert not avatar["builtin"]
    listed = http.get(f"{live.http}/v1/avatars").json()["data"]
    assert [a["id"] for a in listed][0] == "drawn"
    assert avatar["id"] in [a["id"] for a in listed]
    image = http.get(live.http + avatar["image_url"])
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (256, 256)
    one = f"{live.http}/v1/avatars/{avatar['id']}"
    assert http.get(one).json() == avatar
    assert http.delete(one).status_code == 204
    assert http.get(one).status_code == 404
    assert http.delete(one).status_code == 404


def test_uploads_keep_no_metadata(live: LiveServer) -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    exif[0x0112] = 6
    buffer = io.BytesIO()
    drawn_face().rotate(90).save(buffer, "JPEG", exif=exif)
    avatar = upload(live, buffer.getvalue()).json()
    folder = live.config.data_dir / "avatars" / avatar["id"]
    for path in folder.glob("*.jpg"):
        assert not Image.open(path).getexif()
    http.delete(f"{live.http}/v1/avatars/{avatar['id']}")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "invalid_image"),
        (b"GIF89a nonsense", 422, "invalid_image"),
        (encoded(Image.new("RGB", (400, 400), "olive")), 422, "invalid_image"),
        (encoded(Image.new("L", (9_000, 9_000)), "PNG"), 422, "invalid_image"),
        (bytes((10 << 20) + 1), 413, "message_too_large"),
    ],
    ids=["empty", "nonsense", "faceless", "bomb", "huge"],
)
def test_bad_uploads_are_explained(live: LiveServer, data: bytes, status: int, code: str) -> None:
    answer = upload(live, data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(answer.json()["error"]["message"]) > 20


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", ".new-x", "%00", "a" * 65])
def test_ids_cannot_leave_the_folder(live: LiveServer, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = http.request(method, f"{live.http}/v1/avatars/{path}")
        assert answer.status_code in (400, 404)


def test_built_in_avatars_stay(live: LiveServer) -> None:
    answer = http.delete(f"{live.http}/v1/avatars/drawn")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "avatar_read_only")
    assert http.get(f"{live.http}/v1/avatars/drawn/image").status_code == 200


async def test_deleting_an_avatar_in_use_leaves_its_session_alone(live: LiveServer) -> None:
    avatar = upload(live, encoded(drawn_face())).json()
    async with client_of(live) as client:
        await client.configure(avatar_id=avatar["id"])
        async with httpx.AsyncClient(timeout=60.0) as other:
            answer = await other.delete(f"{live.http}/v1/avatars/{avatar['id']}")
        assert answer.status_code == 204
        await client.send_audio(noise(8_000))
        await client.send("input_audio_buffer.commit")
        assert (await client.until("response.done"))["status"] == "completed"
    async with client_of(live) as late:
        await late.send("session.update", session={"avatar_id": avatar["id"]})
        assert (await late.until("error"))["error"]["code"] == "avatar_not_found"


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("probe", ["live", "ready", "startup"])
def test_health(live: LiveServer, prefix: str, probe: str) -> None:
    assert http.get(f"{live.http}{prefix}/health/{probe}").status_code == 200


def test_models_and_capacity(live: LiveServer) -> None:
    (model,) = http.get(f"{live.http}/v1/models").json()["data"]
    assert (model["id"], model["state"]) == ("embedded", "ready")
    capacity = http.get(f"{live.http}/v1/realtime/capacity").json()
    assert capacity["max"] == 8
    assert 0 <= capacity["active"] <= 8


def test_metrics_have_help_and_the_documented_names(live: LiveServer) -> None:
    text = http.get(f"{live.http}/metrics").text
    for name in (
        "sessions_active",
        "sessions_max",
        "sessions_queued",
        "sessions_total",
        "session_duration_seconds",
        "first_frame_seconds",
        "chunk_generate_seconds",
        "chunk_realtime_factor",
        "interrupt_seconds",
        "frames_sent_total",
        "frames_dropped_total",
        "output_lag_seconds",
        "client_skew_seconds",
        "client_underruns_total",
        "input_buffer_seconds",
        "ws_bytes_total",
        "engine_state",
        "model_load_seconds",
        "errors_total",
        "build_info",
    ):
        assert f"# HELP visavis_{name} " in text, name


def test_page_that_is_not_built_says_how(live: LiveServer) -> None:
    answer = http.get(f"{live.http}/")
    assert answer.status_code == 200
    assert "npm run build" in answer.text


def test_built_page_is_served_and_metrics_move_to_their_port(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<h1>hello</h1>")
    config = make_config(tmp_path, web_dir=page, admin_port=0)
    with running(config, load_painting_engine) as server:
        assert "hello" in http.get(f"{server.http}/").text
        assert http.get(f"{server.http}/metrics").status_code == 404
        assert http.get(f"{server.http}/v1/models").status_code == 200


async def test_a_page_that_let_its_name_point_here_gets_nothing(tmp_path: Path) -> None:
    """DNS rebinding: for the browser the server is the page's own, by a name that is not its."""
    with running(make_config(tmp_path, admin_port=0), load_painting_engine) as server:
        admin = f"http://127.0.0.1:{server.server.admin_port}"
        addresses = [server.http + path for path in ("/", "/v1/avatars", "/openapi.json")]
        addresses += [admin + path for path in ("/metrics", "/v1/realtime/sessions")]
        async with httpx.AsyncClient() as client:
            for address in addresses:
                port = httpx.URL(address).port
                assert (await client.get(address)).status_code == 200
                own = await client.get(address, headers={"Host": f"localhost:{port}"})
                assert own.status_code == 200
                foreign = await client.get(address, headers={"Host": f"evil.example:{port}"})
                error = foreign.json()["error"]
                assert (foreign.status_code, error["code"]) == (403, "origin_not_allowed")
                assert "VISAVIS_ALLOWED_ORIGINS" in error["message"]
        page = f"http://evil.example:{server.port}"
        async with connect(
            f"{page.replace('http', 'ws')}/v1/realtime/avatar",
            host="127.0.0.1",
            port=server.port,
            origin=Origin(page),
        ) as socket:
            error = json.loads(await socket.recv())["error"]
            assert error["code"] == "origin_not_allowed"
            await socket.wait_closed()
            assert socket.close_code == 4403
