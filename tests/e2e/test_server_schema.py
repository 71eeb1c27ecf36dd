"""Every HTTP operation with requests generated from the server's own OpenAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from live_server import make_config
from schema_cases import every_case
from stand_in import load_painting_engine
from starlette.testclient import TestClient

from visavis.server.app import create_app

EXAMPLES = 10
# What has no model yet says 503; nothing else of the 500s is an answer.
EXPECTED_5XX = {503}


@pytest.fixture
def api(tmp_path: Path) -> Any:
    """The application without its lifespan: no engine, so that what needs one answers 503."""
    # By the name that requests without a network have for the server.
    known = {"image_sandbox": False, "allowed_origins": ("http://testserver",)}
    app = create_app(make_config(tmp_path, **known), load=load_painting_engine)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_no_generated_request_breaks_the_server(api: Any) -> None:
    seen = set()
    for result in api.get_all_operations():
        operation = result.ok()
        seen.add((operation.method, operation.path))
        _try_out(operation)
    assert len(seen) >= 18


def _try_out(operation: Any) -> None:
    def check(case: Any) -> None:
        response = case.call()
        status = response.status_code
        where = f"{operation.method} {case.path}: {status} {response.text[:500]}"
        assert status < 500 or status in EXPECTED_5XX, where
        if status >= 400 and "/health/" not in operation.path:
            body = response.json()
            assert set(body) == {"error"}, where
            assert body["error"]["message"], where
            assert body["error"]["type"].endswith("_error"), where

    every_case(operation, check, EXAMPLES)


def test_the_document_covers_every_route(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path), load=load_painting_engine)
    client = TestClient(app, base_url="http://localhost")
    paths = client.get("/openapi.json").json()["paths"]
    for path in (
        "/v1/avatars",
        "/v1/avatars/{avatar_id}/image",
        "/v1/models",
        "/v1/realtime/client_secrets",
        "/v1/realtime/capacity",
        "/v1/videos/{video_id}/content",
        "/health/ready",
    ):
        assert path in paths
    form = paths["/v1/videos"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"audio", "avatar_id"}
