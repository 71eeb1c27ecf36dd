"""The picture's size out of an H.264 sequence parameter set of the baseline profile.

ITU-T H.264, 7.3.2.1.1; profiles with other chroma formats have more fields and are not read.
"""

from __future__ import annotations

_BASELINE = 66
_MACROBLOCK = 16


class _Bits:
    """A payload's bits, without the bytes that keep start codes out of it (7.4.1)."""

    def __init__(self, unit: bytes) -> None:
        raw = unit.replace(b"\x00\x00\x03", b"\x00\x00")
        self._value = int.from_bytes(raw, "big")
        self._left = 8 * len(raw)

    def take(self, count: int) -> int:
        """An unsigned number of `count` bits. Raises ValueError at the end."""
        if count > self._left:
            raise ValueError("the sequence parameter set ends too early")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def picture_size(sps: bytes) -> tuple[int, int]:
    """(height, width) in pixels; `sps` is the unit from its header byte on.

    Raises ValueError for another profile, or a unit that is cut off.
    """
    bits = _Bits(sps[1:])
    profile = bits.take(8)
    if profile != _BASELINE:
        raise ValueError(f"profile_idc={profile}: only baseline ({_BASELINE}) is read")
    bits.take(16)  # constraints and level
    bits.golomb()  # its id
    bits.golomb()  # log2_max_frame_num
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # reference frames
    bits.take(1)
    width = _MACROBLOCK * (bits.golomb() + 1)
    rows = bits.golomb() + 1
    frames_only = bits.take(1)
    height = _MACROBLOCK * rows * (2 - frames_only)
    if not frames_only:
        bits.take(1)
    bits.take(1)
    if bits.take(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= 2 * (left + right)
        height -= 2 * (2 - frames_only) * (top + bottom)
    return height, width
