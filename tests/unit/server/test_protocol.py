"""The binary codec: golden messages, any field values, any bytes at all."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import (
    HEADER_LEN,
    Flag,
    Frame,
    Header,
    check_pcm16,
    check_sample_rate,
    decode_frame,
    encode_frame,
)

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "vectors.json").read_text())

u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
frames = st.builds(
    lambda audio, video, flags, **fields: Frame(
        Header(flags=Flag(flags), audio_len=len(audio), video_len=len(video), **fields),
        audio,
        video,
    ),
    audio=st.binary(max_size=64),
    video=st.binary(max_size=64),
    flags=u8,
    kind=u8,
    seq=u32,
    pts_us=u64,
    epoch=u32,
    response=u32,
)


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda v: v["name"])
def test_golden_frames(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["message"])
    frame = decode_frame(message)
    assert {name: getattr(frame.header, name) for name in vector["header"]} == vector["header"]
    assert frame.audio.hex() == vector["audio"]
    assert frame.video.hex() == vector["video"]
    if frame.header.header_len == HEADER_LEN:
        assert encode_frame(frame.header, frame.audio, frame.video) == message


@pytest.mark.parametrize("vector", VECTORS["bad_frames"], ids=lambda v: v["name"])
def test_bad_frames_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(bytes.fromhex(vector["message"]))
    assert caught.value.code is ErrorCode.INVALID_FRAME


@given(frames)
def test_what_is_encoded_is_decoded(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame.header, frame.audio, frame.video)) == frame


@given(frames, st.binary(min_size=1, max_size=40))
def test_later_versions_may_lengthen_the_header(frame: Frame, extra: bytes) -> None:
    message = bytearray(encode_frame(frame.header, frame.audio, frame.video))
    message[2:4] = (HEADER_LEN + len(extra)).to_bytes(2, "little")
    message[HEADER_LEN:HEADER_LEN] = extra
    decoded = decode_frame(bytes(message))
    assert (decoded.audio, decoded.video) == (frame.audio, frame.video)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(message: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        frame = decode_frame(message)
        assert frame.header.header_len + len(frame.audio) + len(frame.video) == len(message)


@given(frames, st.data())
def test_cut_messages_are_refused(frame: Frame, data: st.DataObject) -> None:
    message = encode_frame(frame.header, frame.audio, frame.video)
    with pytest.raises(ProtocolError):
        decode_frame(message[: data.draw(st.integers(0, len(message) - 1))])


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_rates_that_are_accepted(rate: int) -> None:
    assert check_sample_rate(rate) == rate


@pytest.mark.parametrize("rate", [-1, 0, 7_999, 48_001, 10**9])
def test_rates_that_are_refused_name_the_limits(rate: int) -> None:
    with pytest.raises(ProtocolError, match=r"8000\.\.48000") as caught:
        check_sample_rate(rate)
    assert caught.value.code is ErrorCode.INVALID_SAMPLE_RATE


def test_half_a_sample_is_refused() -> None:
    assert check_pcm16(b"\1\2") == b"\1\2"
    with pytest.raises(ProtocolError, match="3 bytes"):
        check_pcm16(b"\1\2\3")
