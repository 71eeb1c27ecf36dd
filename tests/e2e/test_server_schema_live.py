"""Every HTTP operation of a running server with keys, by its own OpenAPI document: what is asked is
generated from it, and every answer is held against it. The administration has a port of its own."""

from __future__ import annotations

import io
import itertools
import time
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from live_server import (
    GALLERY_ID,
    LiveServer,
    drawn_face,
    encoded,
    make_config,
    noise,
    running,
)
from schema_cases import every_case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from stand_in import load_painting_engine

ALL, NARROW = "vv_schema-all-0123456789", "vv_schema-narrow-0123456789"
KEYS = f"""
[keys.all]
key = "{ALL}"
scopes = ["realtime", "avatars", "videos", "admin"]
requests_per_minute = 1000000
[keys.narrow]
key = "{NARROW}"
scopes = ["realtime"]
requests_per_minute = 1000000
"""
EXAMPLES = 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
# What needs no key.
PUBLIC = {
    *("/health/live", "/health/ready", "/health/startup"),
    *("/v1/asyncapi.json", "/v1/realtime/capacity", "/metrics"),
}


@dataclass
class Api:
    """A running server, its documents, and what there is to ask for."""

    server: LiveServer
    pages: Any
    administration: Any
    avatar_id: str
    video_id: str
    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def operations(self) -> Iterator[Any]:
        for schema in (self.pages, self.administration):
            for result in schema.get_all_operations():
                yield result.ok()


def wav(samples: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, samples, "NONE", ""))
        file.writeframes(noise(samples))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("schema")
    (folder / "keys.toml").write_text(KEYS)
    config = make_config(
        folder, api_keys_file=folder / "keys.toml", admin_port=0, image_sandbox=False
    )
    with running(config, load_painting_engine) as server:
        port = server.server.admin_port
        client = httpx.Client(
            base_url=server.http, headers={"Authorization": f"Bearer {ALL}"}, timeout=60
        )
        face = {"file": ("face.jpg", encoded(drawn_face()), "image/jpeg")}
        avatar = client.post("/v1/avatars", files=face).raise_for_status().json()
        speech = {"audio": ("speech.wav", wav(8_000), "audio/wav")}
        asked = client.post("/v1/videos", files=speech, data={"avatar_id": GALLERY_ID})
        video = asked.raise_for_status().json()
        deadline_s = time.monotonic() + 60
        while client.get(f"/v1/videos/{video['id']}").json()["status"] != "completed":
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield Api(
            server,
            schemathesis.openapi.from_url(f"{server.http}/openapi.json"),
            schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json"),
            avatar["id"],
            video["id"],
        )
        client.close()


def ask(api: Api, operation: Any, case: Any, key: str | None) -> int:
    """Send a case, hold the answer against the document, and return its status."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    # A generated header of that name would be another caller's.
    case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() != "authorization"}
    response = case.call(headers=headers)
    case.validate_response(response, checks=CHECKS, headers=headers)
    status = int(response.status_code)
    api.answers[operation.method.upper(), operation.path, status] += 1
    return status


def test_every_answer_is_as_the_document_says(api: Api) -> None:
    existing = {"avatar_id": [GALLERY_ID, api.avatar_id], "video_id": [api.video_id]}
    seen = set()
    for operation in api.operations():
        seen.add((operation.method.upper(), operation.path))
        turns = itertools.count()

        def try_out(case: Any, operation: Any = operation, turns: Any = turns) -> None:
            turn = next(turns)
            # Every second one asks for what there is, and leaves it there.
            if turn % 2 and operation.method.upper() == "GET":
                for name in set(existing) & set(case.path_parameters or {}):
                    case.path_parameters[name] = existing[name][turn // 2 % len(existing[name])]
            ask(api, operation, case, ALL)

        every_case(operation, try_out, EXAMPLES)
    assert len(seen) >= 20
    answered = {(method, path) for method, path, status in api.answers if status < 300}
    # What a generated request cannot bring: a portrait, a recording, and the id of what may go.
    hard = {
        ("POST", "/v1/avatars"),
        ("POST", "/v1/videos"),
        ("DELETE", "/v1/avatars/{avatar_id}"),
        ("DELETE", "/v1/videos/{video_id}"),
        ("DELETE", "/v1/realtime/sessions/{session_id}"),
    }
    assert seen - answered <= hard


def test_without_a_key_only_what_is_public_answers(api: Api) -> None:
    for operation in api.operations():
        every_case(operation, lambda case, o=operation: _refused(api, o, case, None, 401), 3)


def test_a_key_without_the_scope_is_refused(api: Api) -> None:
    for operation in api.operations():
        path, method = operation.path, operation.method.upper()
        needs = path.startswith(("/v1/videos", "/v1/realtime/sessions")) or (
            path.startswith("/v1/avatars") and method != "GET"
        )
        if needs:
            every_case(operation, lambda case, o=operation: _refused(api, o, case, NARROW, 403), 3)


def _refused(api: Api, operation: Any, case: Any, key: str | None, status: int) -> None:
    found = ask(api, operation, case, key)
    if operation.path in PUBLIC:
        assert found == 200
    elif operation.path.endswith("/image"):
        # Built-in portraits are public, and no generated id is one's.
        assert found in (400, 404)
    else:
        assert found == status, (operation.path, found)


def test_what_a_generated_request_cannot_bring(api: Api) -> None:
    """The rest of the good answers: an upload, a rendering, and their ends."""
    operations = {(o.method.upper(), o.path): o for o in api.operations()}

    def good(method: str, path: str, **parts: Any) -> int:
        operation = operations[method, path]
        return ask(api, operation, operation.Case(**parts), ALL)

    form = {"media_type": "multipart/form-data"}
    face = encoded(drawn_face(), "PNG")
    assert good("POST", "/v1/avatars", body={"file": face, "name": "One"}, **form) == 201
    speech = {"audio": wav(4_000), "avatar_id": GALLERY_ID, "seed": 3}
    assert good("POST", "/v1/videos", body=speech, **form) == 202
    assert good("GET", "/v1/videos/{video_id}", path_parameters={"video_id": api.video_id}) == 200
    for path, name, value in (
        ("/v1/videos/{video_id}", "video_id", api.video_id),
        ("/v1/avatars/{avatar_id}", "avatar_id", api.avatar_id),
    ):
        assert good("DELETE", path, path_parameters={name: value}) == 204
        assert good("GET", path, path_parameters={name: value}) == 404
