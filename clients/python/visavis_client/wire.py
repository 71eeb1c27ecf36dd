"""The binary messages: a 32-byte little-endian header, audio, video. No I/O.

Written from docs/protocol.md and not from the server's code, on purpose: the golden messages of
tests/protocol/vectors.json keep the two equal.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from visavis_client.errors import WireError
from visavis_client.protocol import HEADER_BYTES, HEADER_FORMAT, Kind

SAMPLE_BYTES = 2
SEQ_MODULUS = 1 << 32
_HEADER = struct.Struct(HEADER_FORMAT)


@dataclass(frozen=True, slots=True)
class Message:
    """One binary message; field names and units are those of docs/protocol.md."""

    kind: int
    flags: int = 0
    seq: int = 0
    pts_us: int = 0
    epoch: int = 0
    response: int = 0
    audio: bytes = b""
    video: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire. Raises WireError for a field that its width cannot hold."""
        try:
            header = _HEADER.pack(
                self.kind,
                self.flags,
                HEADER_BYTES,
                self.seq,
                self.pts_us,
                self.epoch,
                self.response,
                len(self.audio),
                len(self.video),
            )
        except struct.error as error:
            raise WireError(f"a header field is out of range: {error}", remedy="") from error
        return header + self.audio + self.video

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Split one message; bytes between the 32nd and header_len belong to later versions.

        Raises WireError when the lengths do not add up.
        """
        if len(data) < HEADER_BYTES:
            raise _damaged(f"{len(data)} bytes are shorter than a header of {HEADER_BYTES}")
        kind, flags, start, seq, pts_us, epoch, response, audio_len, video_len = (
            _HEADER.unpack_from(data)
        )
        middle = start + audio_len
        if start < HEADER_BYTES:
            raise _damaged(f"header_len={start} is below {HEADER_BYTES}")
        if len(data) != middle + video_len:
            raise _damaged(f"{len(data)} bytes came, the header says {middle + video_len}")
        return cls(kind, flags, seq, pts_us, epoch, response, data[start:middle], data[middle:])


def _damaged(what: str) -> WireError:
    return WireError(
        f"damaged binary message: {what}", remedy="check what is between here and there"
    )


def audio_message(pcm: bytes, seq: int) -> bytes:
    """An AUDIO_IN message of pcm16; `seq` counts the messages and wraps."""
    return Message(kind=Kind.AUDIO_IN, seq=seq % SEQ_MODULUS, audio=pcm).encode()
