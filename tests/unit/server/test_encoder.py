"""What the encoders put out can be decoded, frame by frame, and looks like what went in."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from visavis.server.encoder import H264Encoder, JpegEncoder, open_encoder
from visavis.server.events import OutputMedia
from visavis.server.h264_stream import codec_string


def picture(number: int, size: tuple[int, int] = (64, 96)) -> NDArray[np.uint8]:
    """A colourful gradient that moves."""
    y, x = np.mgrid[: size[0], : size[1]]
    channels = [x * 2 + number * 3, y * 3, 255 - x * 2]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def nal_types(data: bytes) -> list[int]:
    """NAL unit types of an Annex B access unit."""
    return [part[0] & 0x1F for part in data.split(b"\0\0\1")[1:]]


def test_every_h264_frame_comes_at_once_and_decodes() -> None:
    encoder, decoder = H264Encoder((64, 96)), av.CodecContext.create("h264", "r")
    for number in range(12):
        data, keyframe = encoder.encode(picture(number), keyframe=False)
        assert data
        assert keyframe == (number == 0)
        frames = decoder.decode(av.Packet(data))
        if number == 0:
            frames = frames or decoder.decode(None)
            decoder = av.CodecContext.create("h264", "r")
            decoder.decode(av.Packet(data))
            shown = frames[0].to_ndarray(format="rgb24").astype(int)
            # The wedge of colours would be off by far more with the wrong matrix or range.
            assert np.abs(shown - picture(0)).mean() < 6


def test_an_idr_carries_its_parameter_sets_and_nothing_has_b_frames() -> None:
    encoder = H264Encoder((64, 96))
    for number in range(120):
        data, keyframe = encoder.encode(picture(number), keyframe=number == 7)
        kinds = nal_types(data)
        assert keyframe == (number in (0, 7, 57, 107))
        assert (5 in kinds) == keyframe
        if keyframe:
            assert kinds.index(7) < kinds.index(8) < kinds.index(5)
    assert encoder.codec.startswith("avc1.42")


def test_odd_sizes_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="use JPEG"):
        H264Encoder((65, 96))


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(32, 32, 3\)"):
        H264Encoder((64, 96)).encode(picture(0, (32, 32)), keyframe=False)


def test_jpeg_is_420_and_close() -> None:
    data, keyframe = JpegEncoder(quality=95).encode(picture(0)[::-1], keyframe=False)
    image = Image.open(io.BytesIO(data))
    assert keyframe
    assert image.layer[0][1:3] == (2, 2)  # type: ignore[attr-defined]
    assert np.abs(np.asarray(image).astype(int) - picture(0)[::-1]).mean() < 6


def test_no_video_is_no_bytes() -> None:
    encoder = open_encoder(OutputMedia(video="none"), (64, 96), fps=25)
    assert encoder.encode(picture(0), keyframe=True) == (b"", False)
    encoder.close()


def test_codec_string_needs_a_parameter_set() -> None:
    assert codec_string(bytes.fromhex("0000000167424015")) == "avc1.424015"
    with pytest.raises(ValueError, match="parameter set"):
        codec_string(b"\0\0\1\x65")
