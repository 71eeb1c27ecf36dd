"""Frames as bytes at the size they are shown: the portrait's own pixels, moved by OpenCV.

`composition.py` is the rule and this is its fast form. Flows are smooth: they come on every second
pixel of the 256-pixel frame and are interpolated, to whatever size is shown. Both layers are
looked up only where the face may tear; elsewhere they agree or one of them hides the other.

Legend: N frames, S side of the shown frame, h w = 128 the flow's lattice. Positions are in pixels
of the 256-pixel frame unless said otherwise, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import Window, sample, source_offsets
from visavis.engine.codec.motion_latents import FRAME_SIZE

FRAME_SIZES: Final = (256, 384, 512)
LATTICE_STEP: Final = 2
LATTICE: Final = FRAME_SIZE // LATTICE_STEP
_EVERY_SECOND: Final = Window(x=0.5, y=0.5, width=LATTICE, height=LATTICE, step=LATTICE_STEP)
# Sampling twice the pixels bilinearly is as sharp as bicubic sampling, and much faster.
_DENSITY: Final = 2
_EDGE_PIXELS: Final = 1.5  # of the shown frame, as `composition.coverage`
# Where the layers lie further apart than this, and so near a seam, both are looked up.
_APART: Final = 0.1
_SEAM_REACH: Final = 4.0
# What the painter makes at 256 pixels is enlarged; so much of a blur is then taken away again.
_INTERIOR_SHARPENING: Final = 0.5

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Box:
    """Part of the lattice: rows top..bottom, columns left..right, the ends exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of_window(cls, window: Window) -> Box:
        """The lattice points of a window whose sides are even."""
        left, top = int(window.x) // LATTICE_STEP, int(window.y) // LATTICE_STEP
        return cls(
            left, top, left + window.width // LATTICE_STEP, top + window.height // LATTICE_STEP
        )

    def rows_columns(self, zoom: int = 1, margin: int = 0) -> tuple[slice, slice]:
        """Index into a picture of `zoom` pixels to a lattice point, `margin` points wider."""
        return (
            slice((self.top - margin) * zoom, (self.bottom + margin) * zoom),
            slice((self.left - margin) * zoom, (self.right + margin) * zoom),
        )


class Canvas:
    """A portrait to be shown in frames of `size` x `size` pixels.

    Args:
        picture: the framed portrait, uint8 RGB [n, n, 3].
        seams: `FaceLayout.seams`, float32 [5, 256, 256].
    """

    def __init__(self, picture: Bytes, seams: Array, size: int) -> None:
        self.size = size
        self.zoom = size // LATTICE
        self._scale = np.float32(
            size * _DENSITY / FRAME_SIZE
        )  # the picture's pixels to the frame's
        self._picture = _rgba(_fitted(picture, size), size * _DENSITY)
        self._seams = (np.ascontiguousarray(seams[0]), np.ascontiguousarray(seams[1]))

    @cached_property
    def _places(self) -> Array:
        """Where each shown pixel lies in the 256-pixel frame, [S, S, 2] (x, y)."""
        steps = (np.arange(self.size, dtype=np.float32) + 0.5) * (FRAME_SIZE / self.size) - 0.5
        return np.stack(np.meshgrid(steps, steps), axis=2)

    @cached_property
    def _picture_places(self) -> Array:
        return self._in_picture(self._places)

    def draw(self, moved: MovedFrame, interior: Array, residual: Array, mouth: Box) -> Bytes:
        """One frame, uint8 [S, S, 3].

        `interior` and `residual` are the painter's [2 h, 2 w, 3] for the box `mouth`, 0..1.
        """
        size = self.size, self.size
        # In the picture's own pixels, so that the whole frame is passed over once less.
        places = cv2.resize(moved.front * self._scale, size, interpolation=cv2.INTER_LINEAR)
        places += self._picture_places
        frame = cv2.cvtColor(self._remapped(places), cv2.COLOR_RGBA2RGB)
        for box in moved.tears:
            frame[box.rows_columns(self.zoom)] = _bytes(self._blend(moved, box))
        colours = self._blend(moved, mouth, self._enlarged(interior))
        colours += self._enlarged(residual) * np.float32(255)
        frame[mouth.rows_columns(self.zoom)] = _bytes(colours)
        return frame

    def _blend(self, moved: MovedFrame, box: Box, interior: Array | None = None) -> Array:
        """Both layers in a box, the upper in front, and what the gap shows; colours 0..255."""
        base = self._places[box.rows_columns(self.zoom)]
        upper, lower, opens = (
            self._refined(part, box) for part in (moved.upper, moved.lower, moved.opens)
        )
        upper += base
        lower += base
        cover = self._coverage(-_read(self._seams[0], upper))
        below = self._coverage(_read(self._seams[1], lower))
        gap = np.clip(1 - cover - below, 0, 1) * opens
        front, back = (
            self._look_up(places)[..., :3].astype(np.float32) for places in (upper, lower)
        )
        colours = back + cover[..., None] * (front - back)
        hidden = -back if interior is None else interior * np.float32(255) - back
        colours += gap[..., None] * hidden
        return colours

    def _refined(self, lattice: Array, box: Box) -> Array:
        """A box of a map on the lattice at the shown frame's pixels; exact inside, as the whole."""
        part = lattice[box.rows_columns(margin=1)]
        height, width = part.shape[:2]
        zoom = self.zoom
        fine = cv2.resize(part, (width * zoom, height * zoom), interpolation=cv2.INTER_LINEAR)
        return np.asarray(fine[zoom:-zoom, zoom:-zoom], dtype=np.float32)

    def _coverage(self, distance: Array) -> Array:
        """Antialiased step of a signed distance; as wide in shown pixels at any size."""
        steepness = self.size / FRAME_SIZE / _EDGE_PIXELS
        covered: Array = np.clip(distance * steepness + 0.5, 0, 1)
        return covered

    def _in_picture(self, places: Array) -> Array:
        inside: Array = places * self._scale + (self._scale - 1) / 2
        return inside

    def _look_up(self, places: Array) -> Bytes:
        return self._remapped(self._in_picture(places))

    def _remapped(self, places: Array) -> Bytes:
        # Beyond the picture's border its reflection is far less of a stranger than smeared pixels.
        border = cv2.BORDER_REFLECT
        found = cv2.remap(self._picture, places, None, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(found, dtype=np.uint8)

    def _enlarged(self, painted: Array) -> Array:
        """What the painter made at 256 pixels, for the shown frame."""
        if self.size == FRAME_SIZE:
            return painted
        height, width = painted.shape[:2]
        size = width * self.size // FRAME_SIZE, height * self.size // FRAME_SIZE
        large = cv2.resize(painted, size, interpolation=cv2.INTER_CUBIC)
        soft = cv2.GaussianBlur(large, (0, 0), self.size / FRAME_SIZE)
        return np.asarray(
            cv2.addWeighted(large, 1 + _INTERIOR_SHARPENING, soft, -_INTERIOR_SHARPENING, 0),
            dtype=np.float32,
        )


@dataclass(frozen=True, slots=True)
class MovedFrame:
    """Source offsets of one frame on the lattice.

    `front` [h, w, 2] belongs to the layer that is seen, `upper` and `lower` to either; `opens`
    [h, w] says where a gap may open, `tears` where both layers are needed.
    """

    front: Array
    upper: Array
    lower: Array
    opens: Array
    tears: tuple[Box, ...]


def moved_frames(
    codes_N6hw: Tensor, seams_15SS: Tensor, mouth: Box, share_11hw: Tensor | None = None
) -> list[MovedFrame]:
    """What `Canvas.draw` needs of motion codes; tears inside `mouth` are left to it.

    `share` is how much of the motion each point of the lattice follows (`face.matte.head_share`):
    codes are smooth, and move what is behind the head with it.
    """
    seams_N5SS = seams_15SS.expand(len(codes_N6hw), -1, -1, -1)
    maps = source_offsets(codes_N6hw, seams_N5SS, _EVERY_SECOND)
    if share_11hw is not None:
        maps[:, :6] *= share_11hw.to(maps)
    upper, lower = maps[:, 2:4], maps[:, 4:6]
    places = _lattice(maps)
    depth_upper, depth_lower = (
        sample(seams_N5SS[:, n : n + 1], places + flow) for n, flow in enumerate((upper, lower))
    )
    front = torch.where(depth_upper < 0, upper, lower)
    near = (depth_upper < _SEAM_REACH) | (depth_lower < _SEAM_REACH)
    apart = (upper - lower).abs().amax(dim=1, keepdim=True) > _APART
    torn = (apart & near & (depth_upper > -_SEAM_REACH))[:, 0].cpu().numpy()
    torn[(slice(None), *mouth.rows_columns())] = False
    hwc = [part.permute(0, 2, 3, 1).contiguous().cpu().numpy() for part in (front, upper, lower)]
    opens = maps[:, 6].contiguous().cpu().numpy()
    return [
        MovedFrame(*(part[n] for part in hwc), opens[n], _boxes(torn[n], mouth))
        for n in range(len(maps))
    ]


def _lattice(like: Tensor) -> Tensor:
    steps = LATTICE_STEP * torch.arange(LATTICE, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack([steps.expand(LATTICE, -1), steps[:, None].expand(-1, LATTICE)])


def _boxes(torn: NDArray[np.bool_], mouth: Box) -> tuple[Box, ...]:
    """Boxes around what is torn: left and right of the mouth's middle, above it and below."""
    middle = (mouth.left + mouth.right) // 2
    found = []
    for top, bottom in ((0, mouth.top), (mouth.top, LATTICE)):
        for left, right in ((0, middle), (middle, LATTICE)):
            rows = np.flatnonzero(torn[top:bottom, left:right].any(axis=1))
            columns = np.flatnonzero(torn[top:bottom, left:right].any(axis=0))
            if len(rows):
                # A point more on each side, since interpolation mixes neighbours; the outermost
                # points of the lattice have none and are never torn in a face.
                found.append(
                    Box(
                        max(left + int(columns[0]) - 1, 1),
                        max(top + int(rows[0]) - 1, 1),
                        min(left + int(columns[-1]) + 2, LATTICE - 1),
                        min(top + int(rows[-1]) + 2, LATTICE - 1),
                    )
                )
    return tuple(found)


def _fitted(picture: Bytes, size: int) -> Bytes:
    if picture.shape[0] == size:
        return picture
    shrinks = picture.shape[0] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(picture, (size, size), interpolation=method), dtype=np.uint8)


def _rgba(picture: Bytes, size: int) -> Bytes:
    """The picture enlarged; four channels, since OpenCV looks those up twice as fast as three."""
    fine = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.cvtColor(fine, cv2.COLOR_RGB2RGBA), dtype=np.uint8)


def _read(values: Array, places: Array) -> Array:
    return np.asarray(
        cv2.remap(values, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.float32,
    )


def _bytes(colours: Array) -> Bytes:
    return np.asarray(np.clip(colours + 0.5, 0, 255), dtype=np.uint8)
