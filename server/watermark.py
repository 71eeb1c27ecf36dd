"""A visible label in the lower right corner of every frame of a recording."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Of the frame's height; legible at 256 px, small at 768.
TEXT_HEIGHT = 0.06
OPACITY = 0.75


class Watermark:
    """`text` for frames of size (height, width), drawn once and blended into each frame."""

    def __init__(self, text: str, size: tuple[int, int]) -> None:
        height, width = size
        pixels = max(11, round(height * TEXT_HEIGHT))
        font = ImageFont.load_default(pixels)
        margin = pixels // 2
        left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
            (0, 0), text, font=font, stroke_width=1
        )
        if right - left > width - 2 * margin:
            raise ValueError(
                f"watermark={text!r} is {right - left:.0f} pixels wide, {width - 2 * margin} fit "
                "into the frame; use a shorter text"
            )
        place = (width - margin - right, height - margin - bottom)
        fill, stroke = Image.new("L", (width, height)), Image.new("L", (width, height))
        ImageDraw.Draw(fill).text(place, text, font=font, fill=255)
        ImageDraw.Draw(stroke).text(place, text, font=font, fill=255, stroke_width=1)
        # White letters with a dark rim are legible on any picture.
        self._box = (slice(max(0, int(place[1] + top) - 1), height), slice(0, width))
        self._alpha = (np.asarray(stroke, np.float32) / 255 * OPACITY)[self._box][..., None]
        self._colour = np.asarray(fill, np.float32)[self._box][..., None]

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame, uint8 RGB [H, W, 3], with the label; the input stays as it is."""
        marked = pixels.copy()
        under = marked[self._box].astype(np.float32)
        marked[self._box] = (under + (self._colour - under) * self._alpha).round().astype(np.uint8)
        return marked
