"""Pictures of another size and rate: evenly left out, decodable, and back to full quality."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from visavis.server.encoder import H264Encoder
from visavis.server.events import OutputMedia
from visavis.server.fmp4 import Fmp4Writer, nal_units
from visavis.server.h264_sps import picture_size
from visavis.server.output_choice import FRAME_RATES
from visavis.server.picture_stream import Cadence, PictureStream, scaled_size
from visavis.server.protocol import Header, Kind


def frame(number: int, size: tuple[int, int] = (96, 64)) -> NDArray[np.uint8]:
    ramp = np.linspace(20 + number, 200, size[1], dtype=np.uint8)
    return np.broadcast_to(ramp[None, :, None], (*size, 3)).copy()


def decoded(units: list[bytes]) -> list[tuple[int, int]]:
    """(height, width) of each picture."""
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    found = [f for unit in units for f in decoder.decode(av.Packet(unit))]
    return [(f.height, f.width) for f in found]


@given(fps=st.sampled_from(FRAME_RATES), seconds=st.integers(1, 40))
def test_a_cadence_gives_its_rate_as_evenly_as_can_be(fps: float, seconds: int) -> None:
    cadence = Cadence(fps)
    places = [n for n in range(25 * seconds) if cadence.next()]
    assert places[0] == 0
    assert len(places) == -(-fps * seconds // 1)
    steps = {later - earlier for earlier, later in pairwise(places)}
    assert max(steps, default=1) - min(steps, default=1) <= 1


def test_pictures_come_in_the_wanted_size_and_rate() -> None:
    stream = PictureStream(OutputMedia(video="jpeg"), (48, 32), fps=12.5)
    videos = [stream.encode(frame(n), keyframe=False)[0] for n in range(10)]
    assert [bool(video) for video in videos] == [True, False] * 5
    picture = Image.open(io.BytesIO(videos[0]))
    assert picture.size == (32, 48)
    shown = np.asarray(picture.convert("RGB")).astype(int)
    assert abs(shown[0, 0, 0] - 20) < 8
    assert abs(shown[0, -1, 0] - 200) < 8


@pytest.mark.parametrize("fps", FRAME_RATES)
def test_keyframes_come_every_two_seconds_at_any_rate(fps: float) -> None:
    stream = PictureStream(OutputMedia(), (64, 64), fps=fps)
    keyframes = [n for n in range(160) if stream.encode(frame(n % 9), keyframe=False)[1]]
    assert keyframes[0] == 0
    assert all(50 <= b - a <= 50 + 25 / fps for a, b in pairwise(keyframes))
    assert len(keyframes) >= 3


def test_a_keyframe_and_the_first_frame_of_an_answer_are_never_left_out() -> None:
    stream = PictureStream(OutputMedia(video="jpeg"), (64, 64), fps=5)
    assert stream.encode(frame(0), keyframe=False)[0]
    assert not stream.encode(frame(1), keyframe=False)[0]
    assert stream.encode(frame(2), keyframe=False, wanted=True)[0]
    assert not stream.encode(frame(3), keyframe=False)[0]
    assert stream.encode(frame(4), keyframe=True)[0]


def test_less_for_a_while_is_one_decodable_stream() -> None:
    stream = PictureStream(OutputMedia(), (128, 96))
    units: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    for number in range(30):
        if number == 10:
            stream.limit(scale=0.75, fps=25)
        if number == 20:
            stream.limit(scale=1.0, fps=25)
        video, keyframe = stream.encode(frame(number, (128, 96)), keyframe=False)
        assert keyframe == (number in (0, 10, 20))
        units.append(video)
        sizes.append(stream.size)
        for unit in nal_units(video):
            if unit[0] & 0x1F == 7:
                # The level that the client's decoder was set up for.
                assert "avc1." + unit[1:4].hex().upper() == stream.codec
    assert decoded(units) == sizes
    assert set(sizes) == {(128, 96), (96, 72)}


def test_the_limit_on_the_rate_leaves_a_lower_wish_alone() -> None:
    stream = PictureStream(OutputMedia(video="jpeg"), (64, 64), fps=10)
    stream.limit(scale=1.0, fps=12.5)
    assert stream.fps == 10
    stream.limit(scale=1.0, fps=5)
    assert stream.fps == 5
    stream.limit(scale=1.0, fps=25)
    assert stream.fps == 10


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(8, 130).map(lambda n: 2 * n), width=st.integers(8, 130).map(lambda n: 2 * n)
)
def test_the_size_is_read_out_of_the_parameter_set(height: int, width: int) -> None:
    encoder = H264Encoder((height, width))
    data, _ = encoder.encode(np.zeros((height, width, 3), np.uint8), keyframe=True)
    (sps,) = [unit for unit in nal_units(data) if unit[0] & 0x1F == 7]
    assert picture_size(sps) == (height, width)


def test_a_cut_off_parameter_set_and_another_profile_are_refused() -> None:
    with pytest.raises(ValueError, match="ends too early"):
        picture_size(bytes.fromhex("6742c00a"))
    with pytest.raises(ValueError, match="profile_idc=100"):
        picture_size(bytes.fromhex("6764001f00"))


def test_fragments_begin_anew_when_the_size_changes() -> None:
    writer, film, heights = Fmp4Writer(), b"", []
    stream = PictureStream(OutputMedia(video="fmp4"), (128, 128))
    for number in range(6):
        stream.limit(scale=1.0 if number < 3 else 0.5, fps=25)
        video, _ = stream.encode(frame(number, (128, 128)), keyframe=False)
        config = writer.config(video)
        assert (config is not None) == (number in (0, 3))
        if number == 3:
            heights += heights_of(film)
            film = b""
        header = Header(kind=Kind.MEDIA, pts_us=number * 40_000)
        film += (config or b"") + writer.message(header, video)[1]
    assert [*heights, *heights_of(film)] == [128] * 3 + [64] * 3


def heights_of(film: bytes) -> list[int]:
    with av.open(io.BytesIO(film)) as container:
        return [picture.height for picture in container.decode(video=0)]


@given(size=st.tuples(st.integers(32, 500), st.integers(32, 500)), scale=st.floats(0.05, 1.0))
def test_scaled_sizes_are_even_and_not_too_small(size: tuple[int, int], scale: float) -> None:
    height, width = scaled_size(size, scale)
    assert height % 2 == width % 2 == 0
    assert min(height, width) >= min(62, min(size) - 1)
    assert height <= size[0] + 1
    assert width <= size[1] + 1
