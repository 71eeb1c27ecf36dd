"""A frame with its sound, and what turns it into pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visavis_client import wire
from visavis_client.errors import FrameDecodeError, MissingExtraError
from visavis_client.protocol import FRAME_US, Flag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JPEG, H264 = "jpeg", "h264"
FPS = 1_000_000 // FRAME_US


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """One picture and the 40 ms of sound that belong to it.

    `video` is a JPEG file, one H.264 access unit (Annex B) or an fMP4 fragment, as `codec` says;
    it is empty where the picture was left out: by a lower `fps`, or for want of bandwidth.
    `audio` is pcm16 at `rate` Hz: the caller's own samples, or silence in an idle frame. `pts_us`
    is the place on the session's timeline in microseconds. `response` counts utterances from 1 and
    is 0 when idle; `first` and `last` mark an utterance's ends. `gap` says that frames before this
    one were lost because nobody read them, or with a lost connection.
    """

    video: bytes
    audio: bytes
    codec: str
    rate: int
    pts_us: int
    epoch: int
    response: int
    seq: int
    keyframe: bool
    first: bool
    last: bool
    discontinuity: bool
    gap: bool = False

    @property
    def index(self) -> int:
        """Frames of the session before this one, idle ones included."""
        return self.pts_us // FRAME_US

    @property
    def idle(self) -> bool:
        """Whether nothing is being said."""
        return self.response == 0

    def to_rgb(self) -> NDArray[np.uint8]:
        """Decode a JPEG frame to uint8 RGB [height, width, 3]; needs numpy and Pillow.

        Raises FrameDecodeError for H.264, whose frames depend on earlier ones: FrameDecoder is
        for that.
        """
        if self.codec != JPEG:
            raise FrameDecodeError(
                f"a frame of {self.codec} cannot be decoded alone",
                remedy='use FrameDecoder, or connect with video="jpeg"',
            )
        return _decode_jpeg(self.video)


def frame_of(message: wire.Message, *, codec: str, rate: int, gap: bool = False) -> AvatarFrame:
    """The frame of a MEDIA message."""
    return AvatarFrame(
        video=message.video,
        audio=message.audio,
        codec=codec,
        rate=rate,
        pts_us=message.pts_us,
        epoch=message.epoch,
        response=message.response,
        seq=message.seq,
        keyframe=bool(message.flags & Flag.KEYFRAME),
        first=bool(message.flags & Flag.FIRST),
        last=bool(message.flags & Flag.LAST),
        discontinuity=bool(message.flags & Flag.DISCONTINUITY),
        gap=gap,
    )


class FrameDecoder:
    """Decodes a session's frames of either codec, in the order in which they came.

    H.264 needs every frame, idle ones too: iterate `session.frames()` or `speak(idle=True)`.
    """

    def __init__(self) -> None:
        self._h264: Any = None
        self._waiting = True

    def decode(self, frame: AvatarFrame) -> NDArray[np.uint8] | None:
        """uint8 RGB [height, width, 3]; None for a frame without a picture, and until a keyframe
        came, at the start or after a gap.

        Raises MissingExtraError without `av` (H.264) or Pillow (JPEG), FrameDecodeError for bad
        data and other formats.
        """
        if frame.codec == JPEG:
            return _decode_jpeg(frame.video) if frame.video else None
        if frame.codec != H264:
            raise FrameDecodeError(
                f"frames of {frame.codec} cannot be decoded here",
                remedy='connect with video="h264" or video="jpeg"',
            )
        self._waiting = (self._waiting or frame.gap) and not frame.keyframe
        # To the decoder, no bytes are the end of the stream.
        return None if self._waiting or not frame.video else self._decode_h264(frame.video)

    def _decode_h264(self, data: bytes) -> NDArray[np.uint8] | None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("decoding H.264", library="av", extra="h264") from error
        if self._h264 is None:
            self._h264 = av.CodecContext.create("h264", "r")
            self._h264.options = {"flags": "low_delay"}
            self._h264.thread_count = 1  # frame threads would hold pictures back
        try:
            pictures = self._h264.decode(av.Packet(data))
        except av.error.FFmpegError as error:
            raise FrameDecodeError(f"damaged H.264: {error}", remedy="") from error
        pixels: NDArray[np.uint8] | None = None
        for picture in pictures:
            pixels = picture.to_ndarray(format="rgb24")
        return pixels


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    try:
        import numpy as np
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("decoding JPEG", library="Pillow", extra="jpeg") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise FrameDecodeError(f"damaged JPEG: {error}", remedy="") from error
