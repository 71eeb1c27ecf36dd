"""Pictures for a decoder that has seen nothing: re-encoded H.264 and fragmented MP4."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray

from visavis.server.encoder import H264Encoder
from visavis.server.fmp4 import Fmp4Writer, nal_units
from visavis.server.protocol import FRAME_US, Flag, Header, Kind
from visavis.server.recode import Recoder, recoded

SIZE = (64, 96)


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """A bright bar that moves over a soft gradient."""
    frames = []
    for number in range(count):
        frame = np.zeros((*SIZE, 3), np.uint8)
        frame[..., 1] = np.linspace(40, 120, SIZE[1], dtype=np.uint8)
        frame[:, 4 * number : 4 * number + 8] = 230
        frames.append(frame)
    return frames


def encoded(count: int) -> list[bytes]:
    encoder = H264Encoder(SIZE)
    return [encoder.encode(frame, keyframe=False)[0] for frame in pictures(count)]


def decoded(units: list[bytes]) -> list[NDArray[np.uint8]]:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit))]
    return [f.to_ndarray(format="rgb24", src_colorspace="ITU709") for f in frames]


def recode(reference: list[bytes], units: list[bytes]) -> list[tuple[bytes, bool]]:
    return recoded(Recoder(fps=25), reference, units)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_recoded_pictures_can_be_decoded_alone_and_look_the_same() -> None:
    units, frames = encoded(20), pictures(20)
    coded = recode(units[:8], units[8:])
    assert [keyframe for _, keyframe in coded] == [True] + 11 * [False]
    shown = decoded([video for video, _ in coded])
    assert len(shown) == 12
    for number, picture in enumerate(shown):
        assert difference(picture, frames[8 + number]) < 6


def test_a_picture_that_was_left_out_stays_out() -> None:
    units = encoded(6)
    coded = recode(units[:2], [b"", units[2]])
    assert coded[0] == (b"", False)
    assert coded[1][1]


def test_without_a_keyframe_nothing_can_be_seen() -> None:
    units = encoded(6)
    assert all(video == b"" for video, _ in recode([], units[1:3]))


def test_nal_units_split_at_both_start_codes() -> None:
    stream = b"\x00\x00\x00\x01\x67\x01\x00\x00\x01\x68\x02\x00\x00\x00\x01\x65\x03"
    assert list(nal_units(stream)) == [b"\x67\x01", b"\x68\x02", b"\x65\x03"]


def test_fragments_are_a_film_with_the_times_of_the_timeline() -> None:
    writer, film = Fmp4Writer(), b""
    start_us = 7_000_000
    for number, unit in enumerate(encoded(30)):
        config = writer.config(unit)
        assert (config is not None) == (number == 0)
        film += config or b""
        flags = Flag.KEYFRAME if number == 0 else Flag(0)
        header, video = writer.message(
            Header(kind=Kind.MEDIA, flags=flags, pts_us=start_us + number * FRAME_US), unit
        )
        assert (header.kind, header.video_len) == (Kind.FMP4, len(video))
        film += video
    with av.open(io.BytesIO(film)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [frame.pts * stream.time_base for frame in frames]
    assert times == [(start_us + n * FRAME_US) / 1_000_000 for n in range(30)] or all(
        abs(float(t) - (start_us + n * FRAME_US) / 1e6) < 1e-6 for n, t in enumerate(times)
    )
    assert frames[0].width == SIZE[1]
    assert difference(frames[9].to_ndarray(format="rgb24"), pictures(10)[9]) < 12


def test_a_new_reader_gets_the_initialisation_again() -> None:
    writer, units = Fmp4Writer(), encoded(2)
    assert writer.config(units[0]) is not None
    writer.restart()
    assert writer.config(units[1]) is None
    assert writer.config(units[0]) is not None
