"""MP4 files of a talking portrait, with what they say of themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from visavis.engine.avatar_frame import AvatarFrame
from visavis.engine.plan import FPS
from visavis.server.provenance import Provenance
from visavis.server.watermark import Watermark


class Mp4Writer:
    """Muxes frames of size (height, width) and their sound at `rate` Hz to H.264 and AAC.

    provenance: what the file says of itself. watermark: a visible label, none if empty. Raises
    ValueError for a label that does not fit.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: int,
        *,
        provenance: Provenance,
        watermark: str = "",
    ) -> None:
        self._watermark = Watermark(watermark, size) if watermark else None
        self._rate = rate
        self._samples = 0
        self._frames = 0
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata.update(provenance.metadata())
        video = self._container.add_stream("libx264", rate=FPS)
        audio = self._container.add_stream("aac", rate=rate)
        assert isinstance(video, VideoStream)
        assert isinstance(audio, AudioStream)
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        colours = "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv"
        video.options = {"preset": "fast", "crf": "17", "x264-params": colours}
        audio.layout = "mono"
        audio.bit_rate = 96_000 if rate > 24_000 else 48_000
        self._video, self._audio = video, audio

    def write(self, frame: AvatarFrame) -> None:
        """Append a picture, uint8 RGB, and its int16 samples."""
        pixels = np.ascontiguousarray(frame.pixels)
        if self._watermark is not None:
            pixels = self._watermark.apply(pixels)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        picture.pts, picture.time_base = self._frames, Fraction(1, FPS)
        self._frames += 1
        self._container.mux(self._video.encode(picture))
        if not len(frame.audio):
            return
        sound = av.AudioFrame.from_ndarray(frame.audio[None], format="s16", layout="mono")
        sound.sample_rate = self._rate
        sound.pts, sound.time_base = self._samples, Fraction(1, self._rate)
        self._samples += len(frame.audio)
        self._container.mux(self._audio.encode(sound))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
        self._container.close()
