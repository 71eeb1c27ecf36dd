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

from visavis.engine.codec.composition import Sources, Window, sample, source_offsets
from visavis.engine.codec.interior import MouthLook, interior_colours, own_share
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

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Box:
    """Part of the lattice: rows top..bottom, columns left..right, the ends exclusive."""

    left: int
    top: int
    right: int
    bottom: int

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
        look: of the mouth's inside.
    """

    def __init__(self, picture: Bytes, seams: Array, look: MouthLook, size: int) -> None:
        self.size = size
        self.zoom = size // LATTICE
        self._scale = np.float32(size * _DENSITY / FRAME_SIZE)
        self._picture = _rgba(_fitted(picture, size), size * _DENSITY)
        self._look = look
        self._seams = (np.ascontiguousarray(seams[0]), np.ascontiguousarray(seams[1]))

    @cached_property
    def _places(self) -> Array:
        """Where each shown pixel lies in the 256-pixel frame, [S, S, 2] (x, y)."""
        steps = (np.arange(self.size, dtype=np.float32) + 0.5) * (FRAME_SIZE / self.size) - 0.5
        return np.stack(np.meshgrid(steps, steps), axis=2)

    @cached_property
    def _picture_places(self) -> Array:
        return self._in_picture(self._places)

    def draw(self, moved: MovedFrame) -> Bytes:
        """One frame, uint8 [S, S, 3]."""
        size = self.size, self.size
        # In the picture's own pixels, so that the whole frame is passed over once less.
        places: Array = np.asarray(
            cv2.resize(moved.front * self._scale, size, interpolation=cv2.INTER_LINEAR), np.float32
        )
        places += self._picture_places
        frame = cv2.cvtColor(self._remapped(places), cv2.COLOR_RGBA2RGB)
        for box in moved.tears:
            frame[box.rows_columns(self.zoom)] = self._blend(moved, box)
        return np.asarray(frame, dtype=np.uint8)

    def _blend(self, moved: MovedFrame, box: Box) -> Bytes:
        """Both layers in a box, the upper in front, and what is seen between them."""
        upper, lower = self._moved(moved.upper, box), self._moved(moved.lower, box)
        cover = self._coverage(-_read(self._seams[0], upper))
        below = self._coverage(_read(self._seams[1], lower))
        gap = np.clip(1 - cover - below, 0, 1) * self._refined(moved.opens, box)
        front, back = self._look_up(upper), self._look_up(lower)
        colours = back + cover[..., None] * (front - back)
        rows, columns = np.flatnonzero(gap.any(axis=1)), np.flatnonzero(gap.any(axis=0))
        if len(rows):
            inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            head = self._moved(moved.head, box)[inside]
            seen = self._interior(head, upper[inside], lower[inside])
            colours[inside] += gap[inside][..., None] * (seen - back[inside])
        return np.asarray(np.clip(colours + 0.5, 0, 255), dtype=np.uint8)

    def _interior(self, head: Array, upper: Array, lower: Array) -> Array:
        """The mouth's inside at source positions [H, W, 2], 0..255."""
        places = [torch.from_numpy(part).permute(2, 0, 1)[None] for part in (head, upper, lower)]
        sources = Sources(head=places[0], upper=places[1], lower=places[2], opens=places[0][:, :1])
        painted = interior_colours(self._look, sources)[0].permute(1, 2, 0).numpy() * 255
        own = own_share(self._look, places[0])[0].permute(1, 2, 0).numpy()
        if not own.any():
            return np.asarray(painted, dtype=np.float32)
        seen: Array = painted + own * (self._look_up(head) - painted)
        return seen

    def _moved(self, offsets: Array, box: Box) -> Array:
        """Source positions of the shown pixels in a box, [H, W, 2]."""
        moved: Array = self._refined(offsets, box) + self._places[box.rows_columns(self.zoom)]
        return moved

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

    def _look_up(self, places: Array) -> Array:
        """The portrait's colours at positions [H, W, 2], [H, W, 3], 0..255."""
        return self._remapped(self._in_picture(places))[..., :3].astype(np.float32)

    def _remapped(self, places: Array) -> Bytes:
        # Beyond the picture's border its reflection is far less of a stranger than smeared pixels.
        border = cv2.BORDER_REFLECT
        found = cv2.remap(
            self._picture,
            places,
            None,  # type: ignore[call-overload]
            cv2.INTER_LINEAR,
            borderMode=border,
        )
        return np.asarray(found, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class MovedFrame:
    """Source offsets of one frame on the lattice.

    `front` [h, w, 2] belongs to the layer that is seen, `head` to the still head, `upper` and
    `lower` to either layer; `opens` [h, w] says where a gap may open, `tears` where both layers are
    needed.
    """

    front: Array
    head: Array
    upper: Array
    lower: Array
    opens: Array
    tears: tuple[Box, ...]


def moved_frames(
    codes_N6hw: Tensor, seams_15SS: Tensor, mouth: Window, share_11hw: Tensor | None = None
) -> list[MovedFrame]:
    """What `Canvas.draw` needs of motion codes.

    `mouth` is where it may open: the eyes lie above. `share` is how much of the motion each point
    of the lattice follows (`face.matte.head_share`): codes are smooth, and move what is behind the
    head with it.
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
    flows = (front, maps[:, :2], upper, lower)
    hwc = [part.permute(0, 2, 3, 1).contiguous().cpu().numpy() for part in flows]
    opens = maps[:, 6].contiguous().cpu().numpy()
    fronts, heads, uppers, lowers = hwc
    return [
        MovedFrame(fronts[n], heads[n], uppers[n], lowers[n], opens[n], _boxes(torn[n], mouth))
        for n in range(len(maps))
    ]


def _lattice(like: Tensor) -> Tensor:
    steps = LATTICE_STEP * torch.arange(LATTICE, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack([steps.expand(LATTICE, -1), steps[:, None].expand(-1, LATTICE)])


def _boxes(torn: NDArray[np.bool_], mouth: Window) -> tuple[Box, ...]:
    """Boxes around what is torn: the left eye, the right eye and the mouth."""
    nose = int(mouth.y) // LATTICE_STEP
    middle = (int(mouth.x) + mouth.width // 2) // LATTICE_STEP
    found = []
    for top, bottom, left, right in (
        (0, nose, 0, middle),
        (0, nose, middle, LATTICE),
        (nose, LATTICE, 0, LATTICE),
    ):
        rows = np.flatnonzero(torn[top:bottom, left:right].any(axis=1))
        columns = np.flatnonzero(torn[top:bottom, left:right].any(axis=0))
        if len(rows):
            # A point more on each side, since interpolation mixes neighbours; the outermost points
            # of the lattice have none and are never torn in a face.
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
        cv2.remap(
            values,
            places,
            None,  # type: ignore[call-overload]
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        dtype=np.float32,
    )
