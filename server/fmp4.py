"""H.264 access units as fragments of MP4 for Media Source Extensions (ISO/IEC 14496-12 and -15).

One track of video, one frame a fragment, decode times in microseconds of the session's timeline;
sound stays beside it, in the same message.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace

from visavis.server.h264_sps import picture_size
from visavis.server.protocol import FPS, FRAME_US, Flag, Header, Kind

TIMESCALE = 1_000_000
_SPS, _PPS, _AUD = 7, 8, 9
# Sample flags: 0x02000000 depends on no other, 0x01010000 depends on others and is no sync sample.
_SYNC, _NO_SYNC = 0x0200_0000, 0x0101_0000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000)


def nal_units(annex_b: bytes) -> Iterator[bytes]:
    """The NAL units between the start codes of an access unit."""
    start = annex_b.find(b"\x00\x00\x01")
    while start >= 0:
        start += 3
        end = annex_b.find(b"\x00\x00\x01", start)
        # A start code of four bytes, and padding, leave zeros that belong to no unit.
        yield (annex_b[start:] if end < 0 else annex_b[start:end]).rstrip(b"\x00")
        start = end


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


class Fmp4Writer:
    """One stream's boxes. fps: pictures a second, where frames without one are left out."""

    def __init__(self, *, fps: float = FPS) -> None:
        self._size = (0, 0)
        # Up to the next picture, so that nothing is missing between the two.
        self._duration_us = math.ceil(FPS / fps) * FRAME_US
        self._configured_for: tuple[bytes, bytes] | None = None
        self._num_fragments = 0

    def restart(self) -> None:
        """The next keyframe needs an initialisation segment before it, for a new reader."""
        self._configured_for = None

    def config(self, annex_b: bytes) -> bytes | None:
        """The initialisation segment: at the first access unit that has parameter sets, and again
        when they are others."""
        units = {unit[0] & 0x1F: unit for unit in nal_units(annex_b) if unit}
        if _SPS not in units or _PPS not in units:
            return None
        found = (units[_SPS], units[_PPS])
        if found == self._configured_for:
            return None
        self._configured_for = found
        self._size = picture_size(units[_SPS])
        brands = _box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6avc1mp41")
        return brands + _box(
            b"moov",
            _full(b"mvhd", 0, 0, struct.pack(">4I", 0, 0, TIMESCALE, 0), _movie_tail()),
            self._track(units[_SPS], units[_PPS]),
            _box(b"mvex", _full(b"trex", 0, 0, struct.pack(">5I", 1, 1, 0, 0, 0))),
        )

    def _track(self, sps: bytes, pps: bytes) -> bytes:
        height, width = self._size
        header = _full(
            b"tkhd",
            0,
            3,
            struct.pack(">5I", 0, 0, 1, 0, 0),
            struct.pack(">2I4H", 0, 0, 0, 0, 0, 0),
            _MATRIX,
            struct.pack(">2I", width << 16, height << 16),
        )
        empty = struct.pack(">I", 0)
        table = _box(
            b"stbl",
            _full(b"stsd", 0, 0, struct.pack(">I", 1), self._sample_entry(sps, pps)),
            _full(b"stts", 0, 0, empty),
            _full(b"stsc", 0, 0, empty),
            _full(b"stsz", 0, 0, struct.pack(">2I", 0, 0)),
            _full(b"stco", 0, 0, empty),
        )
        references = _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))
        information = _box(
            b"minf",
            _full(b"vmhd", 0, 1, struct.pack(">4H", 0, 0, 0, 0)),
            _box(b"dinf", references),
            table,
        )
        media = _box(
            b"mdia",
            # 0x55C4 is "und", no language, in five bits a letter.
            _full(b"mdhd", 0, 0, struct.pack(">4I2H", 0, 0, TIMESCALE, 0, 0x55C4, 0)),
            _full(b"hdlr", 0, 0, struct.pack(">I4s3I", 0, b"vide", 0, 0, 0), b"visavis\x00"),
            information,
        )
        return _box(b"trak", header, media)

    def _sample_entry(self, sps: bytes, pps: bytes) -> bytes:
        height, width = self._size
        configuration = _box(
            b"avcC",
            bytes((1, sps[1], sps[2], sps[3], 0xFF, 0xE1)),
            struct.pack(">H", len(sps)),
            sps,
            b"\x01",
            struct.pack(">H", len(pps)),
            pps,
        )
        return _box(
            b"avc1",
            bytes(6),
            struct.pack(">H", 1),
            bytes(16),
            struct.pack(">2H3IH", width, height, 0x0048_0000, 0x0048_0000, 0, 1),
            bytes(32),
            struct.pack(">Hh", 24, -1),
            configuration,
        )

    def fragment(self, header: Header, annex_b: bytes) -> bytes:
        """One access unit as `moof` and `mdat`; its time is the header's pts_us."""
        self._num_fragments += 1
        sample = b"".join(
            struct.pack(">I", len(unit)) + unit
            for unit in nal_units(annex_b)
            if unit and unit[0] & 0x1F not in (_SPS, _PPS, _AUD)
        )
        flags = _SYNC if header.flags & Flag.KEYFRAME else _NO_SYNC

        def movie_fragment(data_offset: int) -> bytes:
            return _box(
                b"moof",
                _full(b"mfhd", 0, 0, struct.pack(">I", self._num_fragments)),
                _box(
                    b"traf",
                    _full(b"tfhd", 0, 0x02_0000, struct.pack(">I", 1)),
                    _full(b"tfdt", 1, 0, struct.pack(">Q", header.pts_us)),
                    _full(
                        b"trun",
                        0,
                        0x701,
                        struct.pack(">Ii3I", 1, data_offset, self._duration_us, len(sample), flags),
                    ),
                ),
            )

        return movie_fragment(len(movie_fragment(0)) + 8) + _box(b"mdat", sample)

    def message(self, header: Header, annex_b: bytes) -> tuple[Header, bytes]:
        """Header and video of the FMP4 message for an access unit."""
        video = self.fragment(header, annex_b)
        return replace(header, kind=Kind.FMP4, video_len=len(video)), video


def _movie_tail() -> bytes:
    return b"".join(
        (
            struct.pack(">IHHII", 0x0001_0000, 0x0100, 0, 0, 0),
            _MATRIX,
            bytes(24),
            struct.pack(">I", 2),
        )
    )
