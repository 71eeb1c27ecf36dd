"""The binary half of the wire protocol: a 32-byte little-endian header, audio, video. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from visavis.server.errors import ErrorCode, ProtocolError

SUBPROTOCOL = "avatar.v1"
# Browsers cannot set headers on a socket: the token comes as a second subprotocol, never echoed.
TOKEN_SUBPROTOCOL_PREFIX = "avatar.auth."
ENDPOINT = "/v1/realtime/avatar"
PROTOCOL_VERSION = 1
MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 48_000
# Frames a second of the media timeline, and the length of one.
FPS = 25
FRAME_US = 1_000_000 // FPS


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field of the binary header; `code` is its letter in `struct`."""

    name: str
    code: str
    meaning: str

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return struct.calcsize("<" + self.code)

    @property
    def wire_type(self) -> str:
        """`u8`, `u16`, `u32` or `u64`."""
        return f"u{8 * self.size}"


# The one definition of the header; its offsets follow from the order.
HEADER_FIELDS = (
    HeaderField("kind", "B", "what the message carries"),
    HeaderField("flags", "B", "bits; unknown ones are ignored"),
    HeaderField("header_len", "H", "32; a receiver skips what is beyond"),
    HeaderField("seq", "I", "counts the binary messages of one direction, wraps"),
    HeaderField("pts_us", "Q", "place on the session's timeline; ignored in AUDIO_IN"),
    HeaderField("epoch", "I", "grows by one at every cancel; ignored in AUDIO_IN"),
    HeaderField("response", "I", "index of the response, 0 for idle; ignored in AUDIO_IN"),
    HeaderField("audio_len", "I", "bytes of audio after the header"),
    HeaderField("video_len", "I", "bytes of video after the audio"),
)
HEADER = struct.Struct("<" + "".join(field.code for field in HEADER_FIELDS))
HEADER_LEN = HEADER.size


class Kind(IntEnum):
    """What a binary message carries. Receivers skip kinds that they do not know."""

    AUDIO_IN = 1
    MEDIA = 2
    CODEC_CONFIG = 3
    FMP4 = 4


KIND_MEANINGS = {
    Kind.AUDIO_IN: "client to server: pcm16 of the open utterance",
    Kind.MEDIA: "server to client: one frame and its sound",
    Kind.CODEC_CONFIG: "server to client: the initialisation segment of fmp4, before its media",
    Kind.FMP4: "server to client: one frame as a fragment of fmp4, and its sound",
}


class Flag(IntFlag):
    """Properties of one media message."""

    KEYFRAME = 1
    FIRST = 2
    LAST = 4
    IDLE = 8
    DISCONTINUITY = 16


FLAG_MEANINGS = {
    Flag.KEYFRAME: "the picture can be decoded alone",
    Flag.FIRST: "first frame of its response",
    Flag.LAST: "last frame of its response",
    Flag.IDLE: "nobody speaks; the sound is silence",
    Flag.DISCONTINUITY: "first frame of an epoch, or after a resume: do not predict from before",
}


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


def check_subprotocols(offered: Sequence[str]) -> None:
    """Whether a client speaks this protocol, or names none.

    Raises ProtocolError `unsupported_protocol`.
    """
    names = [name for name in offered if not name.startswith(TOKEN_SUBPROTOCOL_PREFIX)]
    if names and SUBPROTOCOL not in names:
        raise ProtocolError(
            ErrorCode.UNSUPPORTED_PROTOCOL,
            f"none of the subprotocols offered is {SUBPROTOCOL}, which is all that this server has",
        )


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
