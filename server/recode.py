"""H.264 access units anew, from a keyframe on, for a decoder that has seen none of them."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from visavis.server.encoder import H264Encoder


def recode(
    reference: list[bytes], pictures: list[bytes], size: tuple[int, int], *, fps: int
) -> list[tuple[bytes, bool]]:
    """Decode `pictures` (Annex B; b"" where one was left out) with the help of `reference`, which
    begins with a keyframe, and encode them again so that the first one stands alone.

    Returns the new access unit of each picture and whether it is a keyframe; (b"", False) where
    nothing can be seen. size: (height, width). Takes milliseconds a picture: not for event loops.
    """
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    # Frame threads would hold pictures back.
    decoder.thread_count = 1
    for picture in reference:
        _decode(decoder, picture)
    encoder = H264Encoder(size, fps=fps)
    coded: list[tuple[bytes, bool]] = []
    try:
        for picture in pictures:
            pixels = _decode(decoder, picture)
            coded.append((b"", False) if pixels is None else encoder.encode(pixels, keyframe=False))
    finally:
        encoder.close()
    return coded


def _decode(decoder: av.VideoCodecContext, picture: bytes) -> NDArray[np.uint8] | None:
    if not picture:
        return None
    try:
        frames = decoder.decode(av.Packet(picture))
    except av.FFmpegError:
        return None
    if not frames:
        return None
    pixels: NDArray[np.uint8] = frames[-1].to_ndarray(format="rgb24", src_colorspace="ITU709")
    return pixels
