"""JSON events: golden messages read and written, the unknown ignored, the wrong refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ERRORS, ErrorCode, ProtocolError
from visavis.server.events import (
    CLIENT_EVENTS,
    SERVER_EVENTS,
    AudioCommit,
    decode_client_event,
    encode_event,
    event_type,
)

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests" / "protocol" / "vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["client_events"], ids=lambda v: v["type"])
def test_golden_client_events(vector: dict[str, Any]) -> None:
    event = decode_client_event(json.dumps(vector))
    assert event is not None
    read = msgspec.to_builtins(event)
    assert _subset(vector, read), f"{vector} is not in {read}"


def _subset(small: Any, large: Any) -> bool:
    if isinstance(small, dict):
        return all(name in large and _subset(small[name], large[name]) for name in small)
    return bool(small == large)


@pytest.mark.parametrize("vector", VECTORS["server_events"], ids=lambda v: v["event_id"])
def test_golden_server_events(vector: dict[str, Any]) -> None:
    kind = next(kind for kind in SERVER_EVENTS if event_type(kind) == vector["type"])
    event = msgspec.convert(vector, kind)
    assert json.loads(encode_event(event)) == vector


def test_golden_events_cover_every_type() -> None:
    for kinds, name in ((CLIENT_EVENTS, "client_events"), (SERVER_EVENTS, "server_events")):
        assert {event_type(kind) for kind in kinds} == {v["type"] for v in VECTORS[name]}


@pytest.mark.parametrize("vector", VECTORS["bad_texts"], ids=lambda v: v["text"][:40] or "empty")
def test_bad_texts_are_refused_by_code_and_field(vector: dict[str, str]) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_client_event(vector["text"])
    assert caught.value.code == vector["code"]
    assert caught.value.param == vector.get("param")


def test_unknown_fields_and_types_are_ignored() -> None:
    known, unknown = VECTORS["ignored_events"]
    assert decode_client_event(json.dumps(known)) == AudioCommit()
    assert decode_client_event(json.dumps(unknown)) is None


def test_a_refused_event_is_named_by_its_id() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_client_event('{"type": "avatar.set_state", "event_id": "e7", "state": 1}')
    assert caught.value.event_id == "e7"


@given(st.text(max_size=100) | st.binary(max_size=100))
def test_any_text_is_decoded_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_client_event(text)


def test_deep_nesting_is_refused() -> None:
    text = '{"type": "session.ping", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    with pytest.raises(ProtocolError):
        decode_client_event(text)


def test_every_code_has_a_specification() -> None:
    assert set(ERRORS) == set(ErrorCode)


def test_the_protocol_document_names_everything() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    names = [event_type(kind) for kind in (*CLIENT_EVENTS, *SERVER_EVENTS)]
    names += [str(code) for code in ErrorCode]
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing
