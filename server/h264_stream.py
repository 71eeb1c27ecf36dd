"""What an H.264 stream says of itself. No codec."""

from __future__ import annotations

_NAL_SPS = 7
_START_CODE = b"\x00\x00\x01"


def codec_string(annex_b: bytes) -> str:
    """`avc1.PPCCLL` of the first SPS in an Annex B stream. Raises ValueError without one."""
    start = annex_b.find(_START_CODE)
    while start >= 0:
        nal = start + len(_START_CODE)
        if nal + 4 <= len(annex_b) and annex_b[nal] & 0x1F == _NAL_SPS:
            return "avc1." + annex_b[nal + 1 : nal + 4].hex().upper()
        start = annex_b.find(_START_CODE, nal)
    raise ValueError("no sequence parameter set in the H.264 stream")
