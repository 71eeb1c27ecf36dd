"""Frames and their sound into an MP4 file; needs `av` (the extra `record`)."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from fractions import Fraction
from os import PathLike
from types import TracebackType
from typing import Any, Self

from visavis_client.errors import AvatarError, FrameDecodeError, MissingExtraError
from visavis_client.frames import FPS, H264, JPEG, AvatarFrame
from visavis_client.protocol import FRAME_US
from visavis_client.provenance import provenance_tags
from visavis_client.wire import SAMPLE_BYTES

# Invisible at the size of these frames, and half the time of x264's default.
JPEG_ENCODER = {"crf": "18", "preset": "veryfast"}


class Recorder:
    """Writes what it is given, in order; a context manager.

    H.264 frames go into the file as they came, without loss; JPEG frames are encoded. Sound becomes
    AAC. The file's time is that of `pts_us`, from the first frame on: where frames are missing, the
    picture stands still and there is silence. With `close_gaps` it goes on at once instead, as
    between utterances of which only the speech is recorded.

    The first H.264 frame has to be a keyframe: record idle frames too, or ask for one with
    `session.request_keyframe()`; frames before it are left out and counted in `skipped`.

    The file says of itself that it is synthetic, what wrote it and when; also `model`, such as
    `session.created.model`, and `consent`, whether the person shown has agreed, where given.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        close_gaps: bool = False,
        model: str | None = None,
        consent: bool | None = None,
    ) -> None:
        """Raises MissingExtraError without `av`, OSError for a path that cannot be written."""
        try:
            import av
        except ImportError as error:
            raise MissingExtraError("recording", library="av", extra="record") from error
        self._av: Any = av
        self._close_gaps = close_gaps
        self._container: Any = av.open(
            str(path), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._container.metadata.update(
            provenance_tags(created=datetime.now(UTC), model=model, consent=consent)
        )
        self._video: Any = None
        self._audio: Any = None
        self._codec: str | None = None
        self._rate: int | None = None
        self._next_pts_us: int | None = None
        self._num_frames = 0
        self._num_samples = 0
        self.skipped = 0

    @property
    def duration_s(self) -> float:
        """Length of the recording so far."""
        return self._num_frames / FPS

    def write(self, frame: AvatarFrame) -> None:
        """Append a frame. Raises FrameDecodeError for another codec, rate or a bad picture."""
        if self._container is None:
            raise AvatarError("the recording is closed", remedy="make a new Recorder")
        if self._video is None:
            if not frame.video or (frame.codec == H264 and not frame.keyframe):
                self.skipped += 1
                return
            self._begin(frame)
        elif (frame.codec, frame.rate) != (self._codec, self._rate):
            raise FrameDecodeError(
                f"a frame of {frame.codec} at {frame.rate} Hz in a recording of {self._codec} at "
                f"{self._rate} Hz",
                remedy="record each session to a file of its own",
            )
        self._num_frames += self._missing(frame)
        if frame.video:
            self._write_picture(frame)
        self._num_frames += 1
        self._write_sound(frame.audio)
        self._next_pts_us = frame.pts_us + FRAME_US

    def close(self) -> None:
        """Finish the file; twice is no error. Without any frame there is no file worth playing."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self._video is not None and self._codec == JPEG:
                container.mux(self._video.encode(None))
            if self._audio is not None:
                container.mux(self._audio.encode(None))
        finally:
            container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _missing(self, frame: AvatarFrame) -> int:
        """Frames between the last one and this one, that the file has to stand still for."""
        if self._next_pts_us is None or self._close_gaps:
            return 0
        return max(0, (frame.pts_us - self._next_pts_us) // FRAME_US)

    def _begin(self, frame: AvatarFrame) -> None:
        if frame.codec == H264:
            # The muxer wants size and parameter sets before the first packet: read them from it.
            with self._av.open(io.BytesIO(frame.video), format="h264") as source:
                self._video = self._container.add_stream_from_template(source.streams.video[0])
        elif frame.codec == JPEG:
            picture = self._picture(frame.video)
            self._video = self._container.add_stream("libx264", rate=FPS, options=JPEG_ENCODER)
            self._video.pix_fmt = "yuv420p"
            self._video.width, self._video.height = picture.width, picture.height
        else:
            raise FrameDecodeError(
                f"frames of {frame.codec} cannot be recorded",
                remedy='connect with video="h264" or video="jpeg"',
            )
        self._codec, self._rate = frame.codec, frame.rate
        self._audio = self._container.add_stream("aac", rate=frame.rate, layout="mono")

    def _write_picture(self, frame: AvatarFrame) -> None:
        if frame.codec == H264:
            packet = self._av.Packet(frame.video)
            packet.stream = self._video
            packet.time_base = Fraction(1, FPS)
            packet.pts = packet.dts = self._num_frames
            packet.duration = 1
            packet.is_keyframe = frame.keyframe
            self._container.mux(packet)
            return
        # JPEG uses all 256 levels, video 16 to 235.
        # A server that is short of time may send smaller pictures for a while.
        picture = self._picture(frame.video).reformat(
            width=self._video.width,
            height=self._video.height,
            format="yuv420p",
            src_color_range="JPEG",
            dst_color_range="MPEG",
        )
        picture.pts, picture.time_base = self._num_frames, Fraction(1, FPS)
        self._container.mux(self._video.encode(picture))

    def _picture(self, data: bytes) -> Any:
        try:
            decoder = self._av.CodecContext.create("mjpeg", "r")
            (picture,) = decoder.decode(self._av.Packet(data))
        except (self._av.error.FFmpegError, ValueError) as error:
            raise FrameDecodeError(f"damaged JPEG: {error}", remedy="") from error
        return picture

    def _write_sound(self, pcm: bytes) -> None:
        assert self._rate is not None
        samples = len(pcm) // SAMPLE_BYTES
        # Where the frame ends: the last frame of an utterance may bring less than 40 ms of sound.
        start = (self._num_frames - 1) * self._rate // FPS
        end = self._num_frames * self._rate // FPS
        lead = start - self._num_samples
        data = bytes(SAMPLE_BYTES * max(0, lead)) + pcm
        data += bytes(SAMPLE_BYTES * max(0, end - start - samples))
        self._encode_sound(data)

    def _encode_sound(self, data: bytes) -> None:
        samples = len(data) // SAMPLE_BYTES
        if not samples:
            return
        sound = self._av.AudioFrame(format="s16", layout="mono", samples=samples)
        sound.planes[0].update(data)
        sound.sample_rate = self._rate
        sound.pts, sound.time_base = self._num_samples, Fraction(1, self._rate or 1)
        self._num_samples += samples
        self._container.mux(self._audio.encode(sound))
