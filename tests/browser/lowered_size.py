"""A server that lowers the size of its pictures in the middle of a session, as load makes it do."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, WebSocketRoute

from visavis.server.encoder import H264Encoder, JpegEncoder, VideoEncoder
from visavis.server.protocol import Flag, Frame, Kind, decode_frame, encode_frame

SOCKET = "**/v1/realtime/avatar"
JPEG_MAGIC = b"\xff\xd8"


class HalfSize:
    """Makes pictures anew with half of each side, from the first one on."""

    def __init__(self) -> None:
        self._decoder = av.CodecContext.create("h264", "r")
        self._encoder: VideoEncoder | None = None
        self._size = (0, 0)

    def decode(self, video: bytes) -> NDArray[np.uint8] | None:
        """The picture, uint8 RGB [H, W, 3]; the H.264 decoder wants to see all of them."""
        codec = "mjpeg" if video.startswith(JPEG_MAGIC) else "h264"
        decoder = av.CodecContext.create(codec, "r") if codec == "mjpeg" else self._decoder
        assert isinstance(decoder, av.VideoCodecContext)
        pictures = decoder.decode(av.Packet(video))
        return pictures[-1].to_ndarray(format="rgb24") if pictures else None

    def halve(self, frame: Frame, pixels: NDArray[np.uint8]) -> bytes:
        """The same message with the smaller picture."""
        height, width = (side // 4 * 2 for side in pixels.shape[:2])
        small = np.asarray(Image.fromarray(pixels).resize((width, height)))
        if self._encoder is None or self._size != (height, width):
            self._size = (height, width)
            jpeg = frame.video.startswith(JPEG_MAGIC)
            self._encoder = JpegEncoder() if jpeg else H264Encoder((height, width))
        wanted = Flag.KEYFRAME in frame.header.flags
        video, keyframe = self._encoder.encode(small, keyframe=wanted)
        flags = frame.header.flags | Flag.KEYFRAME if keyframe else frame.header.flags
        header = replace(frame.header, flags=flags, video_len=len(video))
        return encode_frame(header, frame.audio, video)


class LoweredSize:
    """Pictures pass as they are until `lower` is called."""

    def __init__(self, page: Page) -> None:
        self.lowered = False
        page.route_web_socket(SOCKET, self._route)

    def lower(self) -> None:
        """From now on, pictures are half as wide and high."""
        self.lowered = True

    def _route(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        half = HalfSize()

        def on_message(message: str | bytes) -> None:
            route.send(self._changed(half, message) if isinstance(message, bytes) else message)

        server.on_message(on_message)

    def _changed(self, half: HalfSize, message: bytes) -> bytes:
        frame = decode_frame(message)
        if frame.header.kind != Kind.MEDIA or not frame.video:
            return message
        pixels = half.decode(frame.video)
        return half.halve(frame, pixels) if self.lowered and pixels is not None else message
