"""As much of JPEG and of fragmented MP4 as the checks look at. Pure parsing, no codec."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Markers of JPEG frames; 0xC4, 0xC8 and 0xCC are tables.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels. Raises ValueError for what is no JPEG."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    raise ValueError("no JPEG with a frame header")


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(type, body) of the boxes that `data` is made of. Raises ValueError when one is cut off."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("a box header is cut off")
        length = int(struct.unpack_from(">I", data, at)[0])
        if not 8 <= length <= len(data) - at:
            raise ValueError(f"a box of {length} bytes where {len(data) - at} are left")
        yield data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + length]
        at += length


def box(data: bytes, *path: str) -> bytes:
    """The body of the first box at a path such as moof, traf, tfdt. Raises ValueError."""
    for name in path:
        found = next((body for kind, body in boxes(data) if kind == name), None)
        if found is None:
            raise ValueError(f"there is no {name} of {'/'.join(path)}")
        data = found
    return data


def timescale(initialisation: bytes) -> int:
    """Ticks a second of the first track. Raises ValueError."""
    header = box(initialisation, "moov", "trak", "mdia", "mdhd")
    return int(struct.unpack_from(">I", header, 20 if header[0] else 12)[0])


def decode_time(fragment: bytes) -> int:
    """Of the first track of a fragment, in ticks. Raises ValueError."""
    body = box(fragment, "moof", "traf", "tfdt")
    return int(struct.unpack_from(">Q" if body[0] else ">I", body, 4)[0])
