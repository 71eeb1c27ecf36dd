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
from visavis_client.errors import ServerError, WireError
from visavis_client.events import ErrorEvent, ServerEvent, parse_event
from visavis_client.protocol import CLOSE_OF_ERROR, ErrorCode, ErrorType, Kind
from visavis_client.server_errors import (
    BY_CODE,
    BY_TYPE,
    CapacityError,
    InvalidRequestError,
    InvalidSampleRateError,
    UnavailableError,
    closes,
    server_error,
)

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
    message = wire.Message(Kind.MEDIA, 3, seq, pts_us, 1, 2, audio, video)
    assert wire.Message.decode(message.encode()) == message


def test_a_field_beyond_its_width_is_refused() -> None:
    with pytest.raises(WireError, match="range"):
        wire.Message(kind=300).encode()


def test_the_sequence_number_wraps() -> None:
    assert wire.Message.decode(wire.audio_message(b"", 2**32 + 5)).seq == 5


def assert_known(message: dict[str, Any], known: dict[str, Any]) -> None:
    """Every field of the message is one of the class, with the same value."""
    for name, value in message.items():
        if isinstance(value, dict) and "raw" in (known[name] or {}):
            assert_known({k: v for k, v in value.items() if k != "event_id"}, known[name])
        else:
            assert known[name] == value, name


@pytest.mark.parametrize("message", VECTORS["server_events"], ids=lambda m: m["type"])
def test_every_golden_event_is_known_with_every_field(message: dict[str, Any]) -> None:
    event = parse_event(json.dumps(message))
    assert type(event) is not ServerEvent
    assert message["type"] == type(event).TYPE
    assert_known(message, dataclasses.asdict(event) | {"type": event.type})


def test_events_of_tomorrow_are_no_error() -> None:
    event = parse_event('{"type": "session.teleported", "where": 3}')
    assert type(event) is ServerEvent
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
    error = server_error(event.error)
    assert isinstance(error, InvalidSampleRateError)
    assert isinstance(error, InvalidRequestError)
    assert error.code == "invalid_sample_rate"
    assert error.param == "session.input_audio.rate"
    assert error.event_id == "c1"
    assert not error.retryable
    assert "resample" in str(error)


def test_every_error_code_of_the_protocol_has_a_class_with_a_remedy() -> None:
    assert set(BY_CODE) == set(ErrorCode)
    assert set(BY_TYPE) == set(ErrorType)
    for code, cls in BY_CODE.items():
        error = server_error({"code": code, "message": "words"})
        assert type(error) is cls
        assert error.remedy
        assert closes(code) == (code in CLOSE_OF_ERROR)


def test_codes_of_tomorrow_become_the_class_of_their_type() -> None:
    error = server_error({"code": "too_hot", "type": "capacity_error", "message": "m"}, 503)
    assert type(error) is UnavailableError
    assert error.status == 503
    assert type(server_error({"code": "x", "message": "m"})) is ServerError
    assert issubclass(CapacityError, UnavailableError)
