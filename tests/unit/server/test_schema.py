"""What is made from the protocol's definition is complete, consistent and committed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from visavis.server import events as ev
from visavis.server import protocol
from visavis.server.errors import CLOSE_CODES, ERRORS, ErrorCode
from visavis.server.schema.asyncapi import asyncapi_document
from visavis.server.schema.typescript import typescript
from visavis_client import protocol as generated

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests" / "protocol" / "vectors.json").read_text())
EVENTS = (*ev.CLIENT_EVENTS, *ev.SERVER_EVENTS)


def test_the_committed_types_are_those_of_the_definition() -> None:
    script = ROOT / "scripts" / "generate_protocol.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = json.loads(json.dumps(asyncapi_document("1.2.3")))
    found = list(references(document))
    assert found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_document_names_every_event_code_and_header_field() -> None:
    document = asyncapi_document("1")
    assert {ev.event_type(kind) for kind in EVENTS} <= set(document["components"]["messages"])
    assert set(document["x-error-codes"]) == {str(code) for code in ErrorCode}
    header = document["components"]["schemas"]["BinaryHeader"]["x-header"]
    assert [field["name"] for field in header] == [f.name for f in protocol.HEADER_FIELDS]
    assert [field["offset"] for field in header] == [0, 1, 2, 4, 8, 16, 20, 24, 28]


def test_every_field_has_a_type_and_every_event_a_text() -> None:
    document = asyncapi_document("1")
    for message in document["components"]["messages"].values():
        assert message["summary"], message["name"]
    for schema in document["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            assert set(field) & {"type", "anyOf", "enum", "$ref", "allOf"}, name


def test_every_close_code_of_an_error_is_explained() -> None:
    assert {spec.close for spec in ERRORS.values()} - {None} <= set(CLOSE_CODES)


@pytest.mark.parametrize("vector", VECTORS["server_events"], ids=lambda v: v["event_id"])
def test_the_python_types_read_golden_server_events(vector: dict[str, Any]) -> None:
    event = generated.server_event({**vector, "a_field_of_tomorrow": 1})
    assert event.type == vector["type"]
    for name, value in vector.items():
        if not isinstance(value, dict):
            assert getattr(event, name) == value


@pytest.mark.parametrize("vector", VECTORS["client_events"], ids=lambda v: v["type"])
def test_the_python_types_write_golden_client_events(vector: dict[str, Any]) -> None:
    written = generated.CLIENT_EVENTS[vector["type"]].from_json(vector).to_json()
    assert ev.decode_client_event(json.dumps(written)) == ev.decode_client_event(json.dumps(vector))


def test_an_unknown_server_event_keeps_its_message() -> None:
    event = generated.server_event({"type": "session.teleport", "where": "home"})
    assert type(event) is generated.ServerEvent
    assert (event.type, event.raw["where"]) == ("session.teleport", "home")


def test_both_sides_have_the_same_header_and_codes() -> None:
    assert struct.Struct(generated.HEADER_FORMAT).size == protocol.HEADER_LEN
    assert protocol.HEADER.format == generated.HEADER_FORMAT
    assert {str(code) for code in generated.ErrorCode} == {str(code) for code in ErrorCode}
    assert set(generated.CLOSE_CODES) == set(CLOSE_CODES)
    assert {f.name: int(f) for f in generated.Flag} == {f.name: int(f) for f in protocol.Flag}


def test_the_typescript_types_name_every_event() -> None:
    text = typescript()
    for kind in EVENTS:
        assert f'  type: "{ev.event_type(kind)}";' in text
        assert f"  | {kind.__name__}" in text
