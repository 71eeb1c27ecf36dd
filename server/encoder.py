"""RGB frames to compressed ones: H.264 through PyAV's libx264, JPEG through simplejpeg."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import av
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from av.video.frame import PictureType
from numpy.typing import NDArray

from visavis.server.events import OutputMedia, VideoFormat
from visavis.server.h264_stream import codec_string

KEYFRAME_EVERY_S = 2


class VideoEncoder(Protocol):
    """One stream's encoder: stateful, one thread at a time."""

    codec: str

    def encode(self, pixels: NDArray[np.uint8], *, keyframe: bool) -> tuple[bytes, bool]:
        """Compress uint8 RGB [H, W, 3]; with the bytes, whether they can be decoded alone."""
        ...

    def close(self) -> None:
        """Free the encoder."""
        ...


class H264Encoder:
    """Annex B, baseline, no B-frames, no delay; SPS and PPS with each IDR, one every 2 s.

    size: (height, width) in pixels, both even. level: `level_idc` to declare; x264's choice if
    None. `codec` is the RFC 6381 string of the stream. Raises ValueError for an odd size.
    """

    def __init__(self, size: tuple[int, int], *, fps: float = 25, level: int | None = None) -> None:
        height, width = size
        if height % 2 or width % 2:
            raise ValueError(
                f"size={width}x{height}: H.264 with 4:2:0 colour needs even sides; use JPEG"
            )
        self._size = size
        self._rate = Fraction(fps).limit_denominator(1000)
        self._level = level
        self._keyframe_every = round(KEYFRAME_EVERY_S * fps)
        self._context = self._open()
        self._num_frames = 0
        self._since_keyframe = 0
        # x264 decides profile and level; its first SPS tells, so one black frame is spent on it.
        probe = self._open()
        black = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        black.pts = 0
        sps = b"".join(bytes(packet) for packet in probe.encode(black.reformat(format="yuv420p")))
        self.codec = codec_string(sps)

    def _open(self) -> av.VideoCodecContext:
        height, width = self._size
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p"
        context.framerate = self._rate
        context.time_base = 1 / self._rate
        context.thread_count = 1
        interval = self._keyframe_every
        level = "" if self._level is None else f":level={self._level / 10:g}"
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "crf": "20",
            "forced-idr": "1",
            "x264-params": f"keyint={interval}:min-keyint={interval}:scenecut=0:bframes=0:"
            "repeat-headers=1:annexb=1:colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv"
            f"{level}",
        }
        return context

    def encode(self, pixels: NDArray[np.uint8], *, keyframe: bool) -> tuple[bytes, bool]:
        """See VideoEncoder. Raises ValueError when the frame has another size."""
        if pixels.shape != (*self._size, 3):
            raise ValueError(f"frame of shape {pixels.shape}, but the stream has {self._size}")
        due = self._since_keyframe >= self._keyframe_every
        idr = keyframe or due or self._num_frames == 0
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts = self._num_frames
        frame.time_base = 1 / self._rate
        frame.pict_type = PictureType.I if idr else PictureType.NONE
        packets = self._context.encode(frame)
        self._num_frames += 1
        self._since_keyframe = 1 if idr else self._since_keyframe + 1
        return b"".join(bytes(packet) for packet in packets), idr

    def close(self) -> None:
        """Drain and free libx264's state."""
        self._context.encode(None)


class JpegEncoder:
    """4:2:0 JPEG; every frame stands alone."""

    codec = "jpeg"

    def __init__(self, *, quality: int = 85) -> None:
        self._quality = quality

    def encode(self, pixels: NDArray[np.uint8], *, keyframe: bool) -> tuple[bytes, bool]:
        """See VideoEncoder."""
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels),
            quality=self._quality,
            colorspace="RGB",
            colorsubsampling="420",
        )
        return bytes(data), True

    def close(self) -> None:
        """Nothing to free."""


class NoVideo:
    """For clients that want audio and timing only."""

    codec = "none"

    def encode(self, pixels: NDArray[np.uint8], *, keyframe: bool) -> tuple[bytes, bool]:
        """See VideoEncoder."""
        return b"", False

    def close(self) -> None:
        """Nothing to free."""


def codec_level(codec: str) -> int:
    """`level_idc` of a string that `codec_string` made."""
    return int(codec[-2:], 16)


def open_encoder(output: OutputMedia, size: tuple[int, int], *, fps: float) -> VideoEncoder:
    """The encoder that a client asked for; size is (height, width) in pixels."""
    video: VideoFormat = output.video  # type: ignore[assignment]  # checked by the session
    match video:
        case "h264" | "fmp4":
            return H264Encoder(size, fps=fps)
        case "jpeg":
            return JpegEncoder(quality=output.quality)
        case "none":
            return NoVideo()
