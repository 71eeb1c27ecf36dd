"""Photo-puppet frames for the codec: random controls on random portraits, rendered exactly.

Legend: N frames, K controls.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import compose
from visavis.engine.codec.interior import MouthLook, mouth_look, paint_interior
from visavis.engine.codec.motion_reference import (
    PORTRAIT_REDUCTION,
    MotionReference,
    make_reference,
)
from visavis.engine.face.framing import Portrait
from visavis.engine.face.layout import measure_layout
from visavis.training.puppets.basis import PuppetBasis, fit_basis
from visavis.training.puppets.controls import CONTROLS, INDEX

CROPS_FILE: Final = "crops.npz"


@dataclass(frozen=True, slots=True)
class Puppet:
    """One crop, ready to be animated."""

    name: str
    reference: MotionReference
    basis: PuppetBasis
    look: MouthLook

    @classmethod
    def of(cls, name: str, portrait: Portrait) -> Self:
        """The puppet of a framed portrait: measured and fitted here."""
        layout = measure_layout(portrait.image, portrait.landmarks)
        return cls(
            name,
            make_reference(portrait, torch.device("cpu")),
            fit_basis(layout),
            mouth_look(portrait.image, layout),
        )

    def render(self, codes_N6hw: Tensor) -> Tensor:
        """Ground-truth frames [N, 3, 256, 256] in 0..1."""
        count = len(codes_N6hw)
        layers = compose(
            self.reference.portrait.expand(count, -1, -1, -1),
            self.reference.seams.expand(count, -1, -1, -1),
            codes_N6hw,
            reduction=PORTRAIT_REDUCTION,
        )
        return layers.blend(paint_interior(self.look, self.reference.portrait, layers)).clamp(0, 1)


class PuppetShow:
    """The portraits of a bank folder as puppets, made on demand and kept."""

    def __init__(self, folder: Path, *, held: bool) -> None:
        """`folder` is one that `puppets.bank` wrote; `held`: those that training must not see."""
        bank = np.load(folder / "bank.npz")
        crops = np.load(folder / CROPS_FILE)
        self.indices = np.flatnonzero((bank["split"] == "held") == held)
        self._basis, self._rest = bank["basis"][self.indices], bank["rest"][self.indices]
        self._names = bank["names"][self.indices]
        self._images = crops["images"][self.indices]
        self._landmarks = crops["landmarks"][self.indices]
        self._puppets: dict[int, Puppet] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Puppet:
        if position not in self._puppets:
            portrait = self.portrait(position)
            image, landmarks = portrait.image, portrait.landmarks
            self._puppets[position] = Puppet(
                str(self._names[position]),
                make_reference(portrait, torch.device("cpu")),
                PuppetBasis(basis=self._basis[position], rest=self._rest[position]),
                mouth_look(image, measure_layout(image, landmarks)),
            )
        return self._puppets[position]

    def portrait(self, position: int) -> Portrait:
        """The framed picture itself."""
        return Portrait(self._images[position], self._landmarks[position])

    def position(self, index: int) -> int:
        """Where a crop of the whole bank stands here. Raises ValueError if it is of the others."""
        position = int(np.searchsorted(self.indices, index))
        if position == len(self.indices) or self.indices[position] != index:
            raise ValueError(f"portrait {index} of the bank is not of this split")
        return position


def random_controls(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Independent poses [count, 15] that cover speech and more."""
    c = np.zeros((count, len(CONTROLS)), np.float32)

    def put(name: str, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
        c[:, INDEX[name]] = values

    open_mouth = rng.random(count) < 0.8
    put("jaw", open_mouth * rng.beta(1.1, 1.7, count))
    put("upper_lip", (rng.random(count) < 0.6) * rng.beta(1.0, 1.8, count))
    put("lower_lip", (rng.random(count) < 0.5) * np.clip(rng.normal(0, 0.5, count), -1, 1))
    put("wide", np.clip(rng.normal(0, 0.5, count), -1, 1))
    put("press", ~open_mouth * (rng.random(count) < 0.5) * rng.random(count))
    put("smile", np.clip(rng.normal(0, 0.35, count), -1, 1))
    put("brow", np.clip(rng.normal(0, 0.35, count), -1, 1))
    blink = (rng.random(count) < 0.35) * rng.random(count)
    put("blink_l", blink)
    put("blink_r", np.where(rng.random(count) < 0.9, blink, rng.random(count)))
    for name in ("yaw", "pitch", "roll", "tx", "ty", "zoom"):
        put(name, np.clip(rng.normal(0, 0.45, count), -1, 1))
    return c
