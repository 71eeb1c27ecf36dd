"""Reads the puppets' controls off motion codes: least squares against each portrait's own basis.

A code is 1,536 numbers that a dozen controls move. In control units a blink is as large as a turn
of the head, and both eyelids are two numbers that can be compared.

Legend: P portraits, B samples, N frames, K controls, h w control grid.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from visavis.training.puppets.basis import WEIGHTS
from visavis.training.puppets.controls import GAP_WEIGHTS

# "lower_lip_up" is left out: it is the lower lip's own motion with the other sign.
LIPS: Final = ("jaw", "upper_lip", "lower_lip", "wide", "narrow", "press")
FACE: Final = (*LIPS, "smile", "brow", "blink_l", "blink_r")
HEAD: Final = ("yaw", "pitch", "roll", "tx", "ty", "zoom")
_HEAD_CHANNELS, _FACE_CHANNELS = slice(0, 2), slice(2, 6)
# Of the basis' own mean square size: keeps what is nearly collinear from blowing up.
_RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Controls:
    """Control values of codes, and what of the code no control explains.

    face [B, N, 10] in the order of `FACE`; head [B, N, 6]; residual [B, N, 6, h, w]. `shift`
    [B, N, 2] is the mean flow of the head, across and down: yaw and tx, or pitch and ty, can cancel
    each other while each by itself looks alive.
    """

    face: Tensor
    head: Tensor
    residual: Tensor
    shift: Tensor

    @property
    def gap(self) -> Tensor:
        """Opening between the lips [B, N], negative where they are pressed."""
        weights = [GAP_WEIGHTS.get(name, 0.0) for name in FACE]
        gap: Tensor = self.face @ self.face.new_tensor(weights)
        return gap


@dataclass(frozen=True, slots=True)
class ControlProbe:
    """Bases and their pseudo-inverses: face [P, 10, 4 h w], head [P, 6, 2 h w].

    `rest` [P, 10] are the face controls that the code at rest reads as: a mouth that was open in
    the picture is shut by them.
    """

    face: Tensor
    head: Tensor
    face_inverse: Tensor
    head_inverse: Tensor
    rest: Tensor

    @classmethod
    def from_basis(cls, basis_PK6hw: Tensor, rest_P6hw: Tensor | None = None) -> "ControlProbe":
        """Of portraits' bases [P, 17, 6, h, w] in the order of `puppets.basis.WEIGHTS`, and codes
        at rest [P, 6, h, w]; zero if not given."""
        face = _rows(basis_PK6hw, FACE)[:, :, _FACE_CHANNELS].flatten(2)
        head = _rows(basis_PK6hw, HEAD)[:, :, _HEAD_CHANNELS].flatten(2)
        inverse = _inverse(face)
        rest = face.new_zeros(face.shape[:2])
        if rest_P6hw is not None:
            rest = torch.einsum("px,pkx->pk", rest_P6hw[:, _FACE_CHANNELS].flatten(1), inverse)
        return cls(face, head, inverse, _inverse(head), rest)

    def of(self, portraits_B: Tensor) -> "ControlProbe":
        """The probe of a batch whose samples show these portraits."""
        return ControlProbe(
            self.face[portraits_B],
            self.head[portraits_B],
            self.face_inverse[portraits_B],
            self.head_inverse[portraits_B],
            self.rest[portraits_B],
        )

    def read(self, codes_BN6hw: Tensor) -> Controls:
        """Controls of codes, or of differences of codes (it is linear; `rest` is not taken off)."""
        head_codes = codes_BN6hw[:, :, _HEAD_CHANNELS].flatten(2)
        face_codes = codes_BN6hw[:, :, _FACE_CHANNELS].flatten(2)
        head = head_codes @ self.head_inverse.transpose(1, 2)
        face = face_codes @ self.face_inverse.transpose(1, 2)
        left = torch.cat([head_codes - head @ self.head, face_codes - face @ self.face], dim=2)
        shift = codes_BN6hw[:, :, _HEAD_CHANNELS].mean(dim=(3, 4))
        return Controls(face, head, left.view_as(codes_BN6hw), shift)


def _rows(basis_PK6hw: Tensor, names: tuple[str, ...]) -> Tensor:
    return basis_PK6hw[:, [WEIGHTS.index(name) for name in names]]


def _inverse(basis_PKx: Tensor) -> Tensor:
    gram = basis_PKx @ basis_PKx.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype)
    inverse: Tensor = torch.linalg.solve(gram + _RIDGE * size[:, None, None] * eye, basis_PKx)
    return inverse
