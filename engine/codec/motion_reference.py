"""A portrait as the motion codec knows it.

Everything that the transformer sees is measured in the portrait of 256x256 pixels; only the picture
that is shown may have more.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.base import FrameSizeError
from visavis.engine.codec.closing import closing_code, missing_share
from visavis.engine.codec.composition import Window
from visavis.engine.codec.interior import mouth_look
from visavis.engine.codec.lids import Lids, measure_lids
from visavis.engine.codec.motion_latents import CODE_CHANNELS, FRAME_SIZE, GRID
from visavis.engine.codec.raster import FRAME_SIZES, LATTICE, Canvas
from visavis.engine.face.framing import Portrait
from visavis.engine.face.layout import FaceLayout, layout_latents, measure_layout
from visavis.engine.face.matte import head_share
from visavis.engine.face.mesh import FACE_OVAL

MOUTH_WINDOW: Final = (104, 88)  # width, height, even
MOUTH_WINDOW_ABOVE: Final = 34  # of the height, how much lies above the mouth's centre
PORTRAIT_REDUCTION: Final = 0.5


class ShownPortrait:
    """What only the shown frames need of a portrait; made at the first use, then shared."""

    def __init__(self, small: Portrait, finest: NDArray[np.uint8], layout: FaceLayout) -> None:
        """`small` is the portrait of 256 pixels, `finest` the same square with more."""
        self._small = small
        self._finest = finest
        self.layout = layout
        self._canvases: dict[int, Canvas] = {}

    def canvas(self, size: int) -> Canvas:
        """What frames of `size` pixels are drawn from."""
        if size not in self._canvases:
            picture = self._small.image if size == FRAME_SIZE else self._finest
            look = mouth_look(self._small.image, self.layout)
            self._canvases[size] = Canvas(picture, self.layout.seams, look, size)
        return self._canvases[size]

    @cached_property
    def head_share(self) -> Tensor:
        """How much of the head's motion each point of the lattice follows, [1, 1, 128, 128]."""
        share = head_share(self._small.image, self._small.landmarks, LATTICE)
        return torch.from_numpy(share)[None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionReference:
    """A portrait as the codec knows it; tensors carry a batch dimension of one."""

    portrait: Tensor  # [1, 3, 512, 512], 0..1: twice the frame's size, for sharp bilinear sampling
    reduced: Tensor  # [1, 3, 128, 128]
    seams: Tensor  # [1, 5, 256, 256], `FaceLayout.seams`
    layout: Tensor  # [1, 16, 16, 16], layout latents
    mouth_centre: Tensor  # [1, 2]
    mouth_width: Tensor  # [1]
    tone: Tensor  # [1, 6]
    window: Window  # where the mouth may open
    shown: ShownPortrait
    lids: Lids  # float32
    rest: Tensor  # [6, 16, 16], what is added to codes so that the mouth is shut at rest
    shown_size: int = FRAME_SIZE  # side of the frames that `MotionCodec.decode` makes

    def shown_at(self, size: int) -> "MotionReference":
        """The same portrait, decoded to frames of `size` x `size`. Raises FrameSizeError."""
        if size not in FRAME_SIZES:
            raise FrameSizeError(
                f"frame_size={size}x{size}: must be one of "
                f"{', '.join(f'{side}x{side}' for side in FRAME_SIZES)}"
            )
        return replace(self, shown_size=size)

    @property
    def shows_open_mouth(self) -> bool:
        """Whether the model has to shut the portrait's mouth before it is at rest."""
        return self.shown.layout.mouth_gap > 0

    def rested(self, codes_N6hw: Tensor) -> "MotionReference":
        """The same portrait, whose mouth is shut where these codes, of silence, leave it open."""
        closing = torch.from_numpy(closing_code(self.shown.layout)).to(codes_N6hw)
        share = missing_share(codes_N6hw, closing, self.shown.layout)
        return replace(self, rest=share * closing)

    @property
    def canvas(self) -> Canvas:
        """What frames of that size are drawn from."""
        return self.shown.canvas(self.shown_size)


def make_reference(
    portrait: Portrait, device: torch.device, dtype: torch.dtype = torch.float32
) -> MotionReference:
    """Measure a framed portrait of 256x256 pixels; one of 384 or 512 is reduced to that first.

    Raises ValueError for another size.
    """
    small = _at_frame_size(portrait)
    layout = measure_layout(small.image, small.landmarks)
    image = torch.from_numpy(small.image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x, y = layout.mouth_centre
    width, height = MOUTH_WINDOW

    def even(start: float, size: int) -> int:
        # On the lattice of `raster.py`, and with a point of it on every side.
        return 2 * int(np.clip(round(start / 2), 1, (FRAME_SIZE - size) // 2 - 1))

    window = Window(
        x=even(x - width / 2, width),
        y=even(y - MOUTH_WINDOW_ABOVE, height),
        width=width,
        height=height,
    )

    def tensor(value: NDArray[np.float32] | list[float]) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32)[None].to(device, dtype)

    return MotionReference(
        portrait=fine_portrait(image).to(device, dtype),
        reduced=F.avg_pool2d(image, 2).to(device, dtype),
        seams=tensor(layout.seams),
        layout=tensor(layout_latents(layout)),
        mouth_centre=tensor(list(layout.mouth_centre)),
        mouth_width=tensor([layout.mouth_width])[0],
        tone=tensor(_face_tone(small)),
        window=window,
        shown=ShownPortrait(small, portrait.finest, layout),
        lids=measure_lids(layout, device),
        rest=torch.zeros(CODE_CHANNELS, GRID, GRID, device=device, dtype=dtype),
    )


def fine_portrait(image_N3HW: Tensor) -> Tensor:
    """The portrait at twice its size: bilinear sampling of it is as sharp as bicubic sampling."""
    return F.interpolate(image_N3HW, scale_factor=2, mode="bicubic", align_corners=False).clamp(
        0, 1
    )


def _at_frame_size(portrait: Portrait) -> Portrait:
    side = portrait.image.shape[0]
    if portrait.image.shape != (side, side, 3) or side not in FRAME_SIZES:
        raise ValueError(
            f"portrait.image has shape {portrait.image.shape}, expected "
            f"({FRAME_SIZE}, {FRAME_SIZE}, 3); frame it with size={FRAME_SIZE}, and with "
            f"fine_size={max(FRAME_SIZES)} for larger frames"
        )
    if side == FRAME_SIZE:
        return portrait
    size = FRAME_SIZE, FRAME_SIZE
    image = np.asarray(cv2.resize(portrait.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return replace(
        portrait, image=image, landmarks=portrait.landmarks * np.float32(FRAME_SIZE / side)
    )


def _face_tone(portrait: Portrait) -> NDArray[np.float32]:
    """Skin colour and light of the face: median and 90 % quantile of its RGB, centred."""
    oval = portrait.landmarks[list(FACE_OVAL)]
    x0, y0 = np.clip(oval.min(axis=0).astype(int), 0, FRAME_SIZE - 2)
    x1, y1 = np.clip(oval.max(axis=0).astype(int), 2, FRAME_SIZE)
    skin = portrait.image[y0:y1, x0:x1].reshape(-1, 3).astype(np.float32) / 255
    tone = np.concatenate([np.median(skin, axis=0), np.quantile(skin, 0.9, axis=0)]) - 0.5
    return tone.astype(np.float32)
