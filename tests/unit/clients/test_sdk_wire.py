"""The Python client's codec against the golden messages that the server's tests read, too."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_client import wire
from visavis_client.errors import CLOSING, REMEDIES, WireError
from visavis_client.events import ErrorEvent, Event, parse_event

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda v: v["name"])
def test_golden_frames_decode(vector: dict[str, Any]) -> None:
    message = wire.Message.decode(bytes.fromhex(vector["message"]))
    header = vector["header"]
    for name in ("kind", "flags", "seq", "pts_us", "epoch", "response"):
        assert getattr(message, name) == header[name]
    assert message.audio.hex() == vector["audio"]
    assert message.video.hex() == vector["video"]


@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS["frames"] if v["header"]["header_len"] == 32],
    ids=lambda v: v["name"],
)
def test_golden_frames_encode_back(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["message"])
    assert wire.Message.decode(data).encode() == data


@pytest.mark.parametrize("vector", VECTORS["bad_frames"], ids=lambda v: v["name"])
def test_bad_frames_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.Message.decode(bytes.fromhex(vector["message"]))


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        message = wire.Message.decode(data)
    except WireError:
        return
    assert data.endswith(message.audio + message.video)


@given(
    st.binary(max_size=64),
    st.binary(max_size=64),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_encode_then_decode_is_the_same(audio: bytes, video: bytes, seq: int, pts_us: int) -> None:
    message = wire.Message(wire.MEDIA, 3, seq, pts_us, 1, 2, audio, video)
    assert wire.Message.decode(message.encode()) == message


def test_a_field_beyond_its_width_is_refused() -> None:
    with pytest.raises(WireError, match="range"):
        wire.Message(kind=300).encode()


def test_the_sequence_number_wraps() -> None:
    assert wire.Message.decode(wire.audio_message(b"", 2**32 + 5)).seq == 5


@pytest.mark.parametrize("message", VECTORS["server_events"], ids=lambda m: m["type"])
def test_every_golden_event_is_known_with_every_field(message: dict[str, Any]) -> None:
    event = parse_event(json.dumps(message))
    assert type(event) is not Event
    known = dataclasses.asdict(event)
    assert {name: known[name] for name in message} == message


def test_events_of_tomorrow_are_no_error() -> None:
    event = parse_event('{"type": "session.teleported", "where": 3}')
    assert type(event) is Event
    assert event.raw["where"] == 3
    more = parse_event('{"type": "output.dropped", "frames": 3, "reason": "late", "new": 1}')
    assert more.raw["new"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"type": 3}', '{"event_id": "x"}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        parse_event(text)


def test_an_event_without_a_field_that_it_needs_is_refused() -> None:
    with pytest.raises(WireError, match=r"response\.started"):
        parse_event('{"type": "response.started"}')


def test_an_error_event_becomes_an_exception_with_a_remedy() -> None:
    event = parse_event(json.dumps(VECTORS["server_events"][-1]))
    assert isinstance(event, ErrorEvent)
    error = event.exception()
    assert error.code == "invalid_sample_rate"
    assert error.param == "session.input_audio.rate"
    assert error.event_id == "c1"
    assert not error.retryable
    assert error.remedy in str(error)


def test_every_error_code_of_the_protocol_has_a_remedy() -> None:
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    rows = [line.split("|") for line in text.split("## Errors")[1].split("## HTTP")[0].splitlines()]
    table = {row[1].strip(" `"): row[3].strip() for row in rows if len(row) > 5 and "`" in row[1]}
    assert set(REMEDIES) == set(table)
    assert {code for code, close in table.items() if close} == CLOSING
