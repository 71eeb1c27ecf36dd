"""How long a chunk takes on this machine, decoding and video encoding included."""

import time
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine

FPS = 25
LONGEST = 33


def chunk_realtime_factors(
    engine: AvatarEngine, avatar: Avatar, *, num_steps: int, chunks: int = 8
) -> list[float]:
    """Times of 33-frame chunks, H.264 included, over the 1.12 s that their frames play.

    Two more are made first, which still pay for memory and threads.
    """
    session = engine.open_session(avatar, num_steps=num_steps)
    height, width = engine.frame_size
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, FPS)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    factors = []
    for number in range(chunks + 2):
        start = time.perf_counter()
        count = 0
        for frame in session.generate_idle(LONGEST):
            _encode(encoder, frame.pixels, frame.index)
            count += 1
        if number >= 2:
            factors.append((time.perf_counter() - start) * FPS / count)
    return factors


def _encode(encoder: av.VideoCodecContext, pixels: NDArray[np.uint8], pts: int) -> None:
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    picture.pts = pts
    encoder.encode(picture)
