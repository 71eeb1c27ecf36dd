"""One session's pictures: scaled to their size, left out down to their rate, compressed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.server.encoder import (
    KEYFRAME_EVERY_S,
    H264Encoder,
    VideoEncoder,
    codec_level,
    open_encoder,
)
from visavis.server.events import OutputMedia
from visavis.server.protocol import FPS

# Below this, nothing of a mouth can be seen.
SMALLEST_SIDE = 64


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, even, no side below SMALLEST_SIDE unless it was."""
    scale = max(scale, min(1.0, SMALLEST_SIDE / min(size)))
    height, width = (2 * max(1, round(side * scale / 2)) for side in size)
    return height, width


class Cadence:
    """Which of 25 frames a second have a picture, so that `fps` of them do, as evenly as can be.

    A picture keeps the place of its own frame: nothing is shown at another time than it was
    made for.
    """

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self._frame = 0

    def restart(self) -> None:
        """The next frame has a picture."""
        self._frame = 0

    def next(self) -> bool:
        """Whether the next frame has one."""
        # In thousandths of a frame a second, for sums of floats would drift.
        rate, whole = round(self.fps * 1000), FPS * 1000
        number, self._frame = self._frame, self._frame + 1
        return number == 0 or number * rate // whole != (number - 1) * rate // whole


class PictureStream:
    """Frames of any size in; a compressed picture, or nothing, out. One thread at a time.

    size: (height, width) as the client has it from `session.updated`; fps: pictures a second, at
    most 25. `limit` lowers both for a while.
    """

    def __init__(self, output: OutputMedia, size: tuple[int, int], *, fps: float = FPS) -> None:
        self.size = size
        self._output = output
        self._full_size = size
        self._full_fps = fps
        self._cadence = Cadence(fps)
        self._encoder = open_encoder(output, size, fps=fps)
        self.codec = self._encoder.codec
        self._since_keyframe = 0

    @property
    def fps(self) -> float:
        """Pictures a second at present."""
        return self._cadence.fps

    def limit(self, *, scale: float, fps: float) -> None:
        """From the next picture on: sides at most `scale` of the full ones, at most so many a
        second."""
        wanted = min(fps, self._full_fps)
        if wanted != self._cadence.fps:
            self._cadence = Cadence(wanted)
        size = scaled_size(self._full_size, scale) if scale < 1 else self._full_size
        if size != self.size:
            self.size = size
            previous, self._encoder = self._encoder, self._open(size)
            previous.close()

    def _open(self, size: tuple[int, int]) -> VideoEncoder:
        if self._output.video in ("h264", "fmp4"):
            # What the client has set its decoder up for stays true.
            return H264Encoder(size, fps=self._full_fps, level=codec_level(self.codec))
        return open_encoder(self._output, size, fps=self._full_fps)

    def encode(
        self, pixels: NDArray[np.uint8], *, keyframe: bool, wanted: bool = False
    ) -> tuple[bytes, bool]:
        """Compress uint8 RGB [H, W, 3]; with the bytes, whether they can be decoded alone.

        b"" for a frame that has no picture at this rate. keyframe: it must be decodable alone;
        wanted: it must have a picture.
        """
        due = self._since_keyframe >= KEYFRAME_EVERY_S * FPS
        if keyframe or wanted:
            self._cadence.restart()
        shown = self._cadence.next()
        self._since_keyframe += 1
        if not shown:
            return b"", False
        if pixels.shape[:2] != self.size:
            pixels = _resized(pixels, self.size)
        video, is_keyframe = self._encoder.encode(pixels, keyframe=keyframe or due)
        if is_keyframe:
            self._since_keyframe = 1
        return video, is_keyframe

    def leave_out(self) -> bool:
        """The next frame has no picture; returns whether it would have had one. The one after it
        makes up for it then."""
        self._since_keyframe += 1
        shown = self._cadence.next()
        if shown:
            self._cadence.restart()
        return shown

    def close(self) -> None:
        """Free the encoder."""
        self._encoder.close()


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    smaller = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    # OpenCV wants width first.
    return cv2.resize(pixels, (width, height), interpolation=method).astype(np.uint8, copy=False)
