"""The OpenAPI document lists a key where one is asked for, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from live_server import make_config
from stand_in import load_painting_engine
from starlette.testclient import TestClient

from visavis.server.admin import create_admin_app
from visavis.server.api_keys import digest_of, entry_of, new_key
from visavis.server.app import create_app

PUBLIC = {
    "/health/live",
    "/health/ready",
    "/health/startup",
    "/metrics",
    "/v1/asyncapi.json",
    "/v1/realtime/capacity",
}


def apps_with_keys(folder: Path) -> dict[str, FastAPI]:
    """Both applications; the main one has the administration's routes, too."""
    keys = folder / "keys.toml"
    keys.write_text(entry_of("somebody", digest_of(new_key())))
    app = create_app(make_config(folder, api_keys_file=keys), load=load_painting_engine)
    return {"main": app, "admin": create_admin_app(app.state.server)}


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each."""
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (method, path, operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


@pytest.mark.parametrize("port", ["main", "admin"])
def test_a_key_is_listed_exactly_where_a_request_without_one_is_refused(
    port: str, tmp_path: Path
) -> None:
    client = TestClient(apps_with_keys(tmp_path)[port])
    public = set()
    for method, path, operation in operations(client):
        status = client.request(method, re.sub(r"{\w+}", "some-id", path)).status_code
        security = operation.get("security", [])
        # An empty one of them says that none is needed: for some of the pictures.
        needed = bool(security) and {} not in security
        assert needed == (status == 401), (method, path, status)
        assert security in ([], [{"HTTPBearer": []}], [{"HTTPBearer": []}, {}])
        if not security:
            public.add(path)
    assert public == {path for path in PUBLIC if port == "main" or "/v1/" not in path}
