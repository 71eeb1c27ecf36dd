"""What compressing pictures costs on this machine, measured at warm-up for each size and format."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.schematic import schematic_portrait
from visavis.server.events import OutputMedia
from visavis.server.output_choice import made_size
from visavis.server.picture_stream import PictureStream
from visavis.server.protocol import FPS

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import AvatarEngine

MEASURED_FORMATS = ("h264", "jpeg")
FRAMES = 8
RUNS = 2
# As grainy as photos are: without it the drawing costs a quarter less than frames of one.
GRAIN = 6.0


@dataclass(frozen=True, slots=True)
class PictureCosts:
    """Seconds of a CPU for one picture. `seconds[format]` holds (height, width) -> seconds, the
    smallest first; `usual_size` is what sessions get that ask for no size."""

    seconds: Mapping[str, Mapping[tuple[int, int], float]]
    usual_size: tuple[int, int]

    def frame_s(self, video: str, size: tuple[int, int], fps: float) -> float:
        """For each frame of the timeline, of which `fps` a second have a picture."""
        by_size = self.seconds.get("h264" if video == "fmp4" else video)
        if not by_size:
            return 0.0
        pixels = size[0] * size[1]
        largest, largest_s = list(by_size.items())[-1]
        picture_s = next(
            (seconds for (height, width), seconds in by_size.items() if height * width >= pixels),
            largest_s * pixels / (largest[0] * largest[1]),
        )
        return picture_s * fps / FPS

    @property
    def usual_s(self) -> float:
        """For each frame of a session that asks for nothing special."""
        return self.frame_s("h264", self.usual_size, FPS)


def measure_engine_pictures(engine: AvatarEngine, max_side: int) -> PictureCosts:
    """Of sessions of this engine that may ask for `max_side` pixels of the longer side."""
    return measure_pictures(engine.frame_size, engine.frame_sizes, max_side)


def measure_pictures(
    usual_size: tuple[int, int], made: Sequence[tuple[int, int]], max_side: int
) -> PictureCosts:
    """Time what sessions may ask for: sizes that the model makes, smallest first, and one of
    `max_side`, which is scaled. The best of a few runs, as `measure_costs` does it."""
    height, width = made[-1]
    scale = max_side / max(height, width)
    sizes = [*made]
    if scale > 1:
        sizes.append((2 * int(height * scale / 2), 2 * int(width * scale / 2)))
    return PictureCosts(
        {
            video: {size: _picture_s(video, size, made_size(size, made)) for size in sizes}
            for video in MEASURED_FORMATS
        },
        usual_size,
    )


def _picture_s(video: str, size: tuple[int, int], source: tuple[int, int]) -> float:
    frames = _moving(source)
    stream = PictureStream(OutputMedia(video=video), size)
    try:
        stream.encode(frames[0], keyframe=True)
        times = []
        for _ in range(RUNS):
            # Others may use the CPU meanwhile; that is not this work's cost.
            start = time.thread_time()
            for frame in frames:
                stream.encode(frame, keyframe=False)
            times.append((time.thread_time() - start) / len(frames))
    finally:
        stream.close()
    return min(times)


def _moving(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """A drawn face with grain that moves by a pixel or two, uint8 [H, W, 3] each."""
    drawn = cv2.resize(schematic_portrait(max(size)).image, size[::-1])
    grain = np.random.default_rng(0).normal(0, GRAIN, drawn.shape)
    grainy = np.clip(drawn + grain, 0, 255).astype(np.uint8)
    return [np.roll(grainy, (n % 3, n % 2), (0, 1)) for n in range(FRAMES)]
