"""The binary half of the wire protocol: a 32-byte little-endian header, audio, video. No I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from visavis.server.errors import ErrorCode, ProtocolError

SUBPROTOCOL = "avatar.v1"
PROTOCOL_VERSION = 1
HEADER = struct.Struct("<BBHIQIIII")
HEADER_LEN = HEADER.size
MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 48_000


class Kind(IntEnum):
    """What a binary message carries. Receivers skip kinds that they do not know."""

    AUDIO_IN = 1
    MEDIA = 2
    CODEC_CONFIG = 3
    FMP4 = 4


class Flag(IntFlag):
    """Properties of one media message."""

    KEYFRAME = 1
    FIRST = 2
    LAST = 4
    IDLE = 8
    DISCONTINUITY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One decoded header. `kind` stays an int, for kinds of a later version are no error.

    `seq` counts the binary messages of one direction; `pts_us` is the place on the session's
    timeline in microseconds; `epoch` grows at every cancel; `response` is 0 for idle frames.
    """

    kind: int
    flags: Flag = Flag(0)
    header_len: int = HEADER_LEN
    seq: int = 0
    pts_us: int = 0
    epoch: int = 0
    response: int = 0
    audio_len: int = 0
    video_len: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole binary message."""

    header: Header
    audio: bytes
    video: bytes


def encode_header(header: Header) -> bytes:
    """The 32 bytes on the wire. Raises struct.error for a field beyond its width."""
    return HEADER.pack(
        header.kind,
        header.flags,
        header.header_len,
        header.seq,
        header.pts_us,
        header.epoch,
        header.response,
        header.audio_len,
        header.video_len,
    )


def encode_frame(header: Header, audio: bytes, video: bytes) -> bytes:
    """Header, audio and video as one message; the header's lengths must be those of the parts."""
    return b"".join((encode_header(header), audio, video))


def decode_frame(message: bytes) -> Frame:
    """Split one binary message. Bytes between the 32nd and `header_len` are skipped.

    Raises ProtocolError `invalid_frame` when the message is shorter than it says, or longer.
    """
    if len(message) < HEADER_LEN:
        raise ProtocolError(
            ErrorCode.INVALID_FRAME,
            f"a binary message has a header of {HEADER_LEN} bytes, but got {len(message)} bytes",
        )
    kind, flags, header_len, seq, pts_us, epoch, response, audio_len, video_len = (
        HEADER.unpack_from(message)
    )
    if header_len < HEADER_LEN:
        raise ProtocolError(
            ErrorCode.INVALID_FRAME,
            f"header_len={header_len} is below {HEADER_LEN}",
            param="header_len",
        )
    expected = header_len + audio_len + video_len
    if len(message) != expected:
        raise ProtocolError(
            ErrorCode.INVALID_FRAME,
            f"header_len + audio_len + video_len = {expected} bytes, "
            f"but the message has {len(message)}",
            param="audio_len",
        )
    header = Header(
        kind=kind,
        flags=Flag(flags),
        header_len=header_len,
        seq=seq,
        pts_us=pts_us,
        epoch=epoch,
        response=response,
        audio_len=audio_len,
        video_len=video_len,
    )
    audio_end = header_len + audio_len
    return Frame(header, message[header_len:audio_end], message[audio_end:])


def check_sample_rate(rate: int) -> int:
    """Return `rate` (Hz) when it is accepted. Raises ProtocolError `invalid_sample_rate`."""
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise ProtocolError(
            ErrorCode.INVALID_SAMPLE_RATE,
            f"input_audio.rate={rate} is outside {MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE} Hz; "
            "send 16000, 24000 or 48000 Hz mono pcm16",
            param="session.input_audio.rate",
        )
    return rate


def check_pcm16(pcm: bytes) -> bytes:
    """Return `pcm` when it holds whole 16-bit samples. Raises ProtocolError `invalid_audio`."""
    if len(pcm) % 2:
        raise ProtocolError(
            ErrorCode.INVALID_AUDIO,
            f"pcm16 audio has two bytes a sample, but got {len(pcm)} bytes; "
            "do not split a sample between messages",
            param="audio",
        )
    return pcm
