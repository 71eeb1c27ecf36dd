"""H.264 access units anew, for a decoder that has not seen what they were predicted from."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from visavis.server.encoder import H264Encoder


class Recoder:
    """Decodes a stream from a keyframe on and encodes it again; its first picture stands alone.

    fps: pictures a second. level: `level_idc` that the client's decoder was set up for. Each call
    takes milliseconds.
    """

    def __init__(self, *, fps: float, level: int | None = None) -> None:
        self._fps = fps
        self._level = level
        self._size: tuple[int, ...] = ()
        self._encoder: H264Encoder | None = None
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        # Frame threads would hold pictures back.
        decoder.thread_count = 1
        self._decoder = decoder

    def see(self, picture: bytes) -> None:
        """Decode a picture (Annex B) that others are predicted from; b"" is one left out."""
        self._decode(picture)

    def recode(self, picture: bytes) -> tuple[bytes, bool]:
        """The picture's new access unit and whether it is a keyframe; (b"", False) when nothing
        can be seen."""
        pixels = self._decode(picture)
        if pixels is None:
            return b"", False
        return self._encoder_for(pixels).encode(pixels, keyframe=False)

    def close(self) -> None:
        """Free the encoder."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _encoder_for(self, pixels: NDArray[np.uint8]) -> H264Encoder:
        """The stream's size may have changed at a keyframe; a new encoder begins with one."""
        height, width = pixels.shape[:2]
        if self._encoder is None or self._size != (height, width):
            self.close()
            self._size = (height, width)
            self._encoder = H264Encoder((height, width), fps=self._fps, level=self._level)
        return self._encoder

    def _decode(self, picture: bytes) -> NDArray[np.uint8] | None:
        if not picture:
            return None
        try:
            frames = self._decoder.decode(av.Packet(picture))
        except av.FFmpegError:
            return None
        if not frames:
            return None
        pixels = frames[-1].to_ndarray(format="rgb24", src_colorspace="ITU709")
        return pixels.astype(np.uint8, copy=False)


def recoded(
    recoder: Recoder, reference: list[bytes], pictures: list[bytes]
) -> list[tuple[bytes, bool]]:
    """`pictures` anew, after those of `reference`, which begins with a keyframe."""
    for picture in reference:
        recoder.see(picture)
    return [recoder.recode(picture) for picture in pictures]
