"""How well sampled motion follows the truth, measured on motion codes alone.

Legend: B sequences, N frames, K basis components, h w control grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_SCALE, TEMPORAL_STRIDE
from visavis.training.control_probe import FACE, LIPS, Controls
from visavis.training.puppets.basis import WEIGHTS

_JAW = WEIGHTS.index("jaw")
_BLINKS = (WEIGHTS.index("blink_l"), WEIGHTS.index("blink_r"))
_DY = 5
_LID_DY = 3
_LIDS = [FACE.index(name) for name in ("blink_l", "blink_r")]
_SHUT = 0.5


@dataclass(frozen=True, slots=True)
class FaceProbe:
    """Weights on the control grid that read openings off a code, one set a sequence.

    mouth and lids [B, h, w]: the jaw's pull on the lower lip against the upper, and the lids' on
    the upper layer, such that one unit of the control reads 1.
    """

    mouth: Tensor
    lids: Tensor

    @classmethod
    def from_basis(cls, basis_BK6hw: Tensor) -> "FaceProbe":
        """Matched filters of the jaw's Dy and of the lids' Ay."""
        lids = basis_BK6hw[:, list(_BLINKS), _LID_DY].sum(dim=1)
        return cls(_matched(basis_BK6hw[:, _JAW, _DY]), _matched(lids))

    def opening(self, codes_BN6hw: Tensor) -> Tensor:
        """Mouth opening [B, N] in units of the widest."""
        return torch.einsum("bnhw,bhw->bn", codes_BN6hw[:, :, _DY], self.mouth)

    def blink(self, codes_BN6hw: Tensor) -> Tensor:
        """Lid closure [B, N], 1 = both shut."""
        return torch.einsum("bnhw,bhw->bn", codes_BN6hw[:, :, _LID_DY], self.lids)


def _matched(pattern_Bhw: Tensor) -> Tensor:
    return pattern_Bhw / pattern_Bhw.square().sum(dim=(1, 2), keepdim=True).clamp_min(1e-8)


def motion_metrics(
    sampled_BN6hw: Tensor, truth_BN6hw: Tensor, probe: FaceProbe, borders: NDArray[np.int64]
) -> dict[str, float]:
    """The numbers a run is judged by.

    opening_r (mean Pearson r over sequences that speak), opening_error (relative RMS),
    opening_dynamics / blink_dynamics / head_dynamics (variance ratios sampled : truth),
    slot_jump (see `slot_jump_ratio`; chunks are whole), head_acceleration (see there, sampled :
    truth), and boundary_jump: mean change of the code across chunk borders (`borders`: first frame
    of each new chunk) over that elsewhere.
    """
    opening, true_opening = probe.opening(sampled_BN6hw), probe.opening(truth_BN6hw)
    speaks = true_opening.std(dim=1) > 0.03
    if not speaks.any():
        speaks[:] = True
    residual = (opening - true_opening).square().mean(dim=1).sqrt() / (
        true_opening.std(dim=1).clamp_min(1e-3)
    )
    metrics = {
        "opening_r": float(_pearson(opening, true_opening)[speaks].mean()),
        "opening_error": float(residual[speaks].mean()),
        "opening_dynamics": _variance_ratio(opening, true_opening),
        "blink_dynamics": _variance_ratio(probe.blink(sampled_BN6hw), probe.blink(truth_BN6hw)),
        "head_dynamics": _variance_ratio(_head(sampled_BN6hw), _head(truth_BN6hw)),
        "slot_jump": slot_jump_ratio(sampled_BN6hw, borders),
        "head_acceleration": float(
            head_acceleration(sampled_BN6hw).square().mean().sqrt()
            / head_acceleration(truth_BN6hw).square().mean().sqrt().clamp_min(1e-8)
        ),
    }
    if len(borders):
        metrics["boundary_jump"] = boundary_jump(sampled_BN6hw, borders)
    return metrics


def control_metrics(sampled: Controls, truth: Controls) -> dict[str, float]:
    """The same in control units: correlation of every lip control, variance ratios of lips and
    head, winks (share of frames with a shut eye whose other eye is less than half as shut) and
    blinks (share of frames with a shut eye, sampled : truth)."""
    metrics = {
        f"{name}_r": float(_pearson(sampled.face[..., i], truth.face[..., i]).mean())
        for i, name in enumerate(LIPS)
    }
    lips = slice(0, len(LIPS))
    metrics["lips_dynamics"] = _control_variance(sampled.face[..., lips], truth.face[..., lips])
    metrics["head_controls_dynamics"] = _control_variance(sampled.head, truth.head)
    lids, true_lids = sampled.face[..., _LIDS], truth.face[..., _LIDS]
    shut, other = lids.amax(dim=2), lids.amin(dim=2)
    blinking = shut > _SHUT
    metrics["winks"] = float((other < shut / 2)[blinking].float().mean()) if blinking.any() else 0.0
    true_share = (true_lids.amax(dim=2) > _SHUT).float().mean().clamp_min(1e-6)
    metrics["blink_frames"] = float(blinking.float().mean() / true_share)
    return metrics


def _control_variance(sampled_BNK: Tensor, truth_BNK: Tensor) -> float:
    ratio = sampled_BNK.var(dim=1).mean(dim=0) / truth_BNK.var(dim=1).mean(dim=0).clamp_min(1e-8)
    return float(ratio.mean())


def boundary_jump(codes_BN6hw: Tensor, borders: NDArray[np.int64]) -> float:
    """Mean absolute change of the code into the frames `borders`, over that elsewhere."""
    change = codes_BN6hw.diff(dim=1).abs().mean(dim=(0, 2, 3, 4))
    at_border = torch.zeros(len(change), dtype=torch.bool)
    at_border[torch.from_numpy(borders) - 1] = True
    return float(change[at_border].mean() / change[~at_border].mean().clamp_min(1e-8))


def head_speed(codes_BN6hw: Tensor) -> Tensor:
    """How far the head's flow moves into each frame [B, N - 1], root mean square over the grid in
    pixels of the 256-pixel frame."""
    return _head_pixels(codes_BN6hw).diff(dim=1).square().mean(dim=(2, 3, 4)).sqrt()


def head_acceleration(codes_BN6hw: Tensor) -> Tensor:
    """Second difference of the head's flow in each sequence [B], root mean square over frames and
    grid, in pixels of the 256-pixel frame."""
    second = _head_pixels(codes_BN6hw).diff(n=2, dim=1)
    return second.square().mean(dim=(1, 2, 3, 4)).sqrt()


def slot_jump_ratio(codes_BN6hw: Tensor, borders: NDArray[np.int64]) -> float:
    """How much faster the head moves into a latent's first frame than into the others.

    A latent codes four frames; what does not fit from one to the next judders six times a second.
    Mean speed there over the median of the frames within latents, averaged over sequences. Latents
    are counted from frame 0 and from every chunk's first frame in `borders`, whose own jump is
    `boundary_jump`'s; 1 if there is no border of latents.
    """
    frames = codes_BN6hw.shape[1]
    starts = [0, *(int(border) for border in borders), frames]
    first = np.zeros(frames, bool)
    for start, end in zip(starts, starts[1:], strict=False):
        first[start + TEMPORAL_STRIDE : end : TEMPORAL_STRIDE] = True
    within = ~first
    within[borders] = False
    speed = head_speed(codes_BN6hw)
    if not first.any():
        return 1.0
    usual = speed[:, torch.from_numpy(within[1:])].median(dim=1).values.clamp_min(1e-6)
    return float((speed[:, torch.from_numpy(first[1:])].mean(dim=1) / usual).mean())


def _head_pixels(codes_BN6hw: Tensor) -> Tensor:
    scale = codes_BN6hw.new_tensor(CODE_SCALE[:2])[:, None, None]
    return codes_BN6hw[:, :, :2] * scale


def _head(codes_BN6hw: Tensor) -> Tensor:
    return codes_BN6hw[:, :, :2].mean(dim=(3, 4))


def _variance_ratio(sampled_BN: Tensor, truth_BN: Tensor) -> float:
    return float(sampled_BN.var(dim=1).mean() / truth_BN.var(dim=1).mean().clamp_min(1e-8))


def _pearson(a_BN: Tensor, b_BN: Tensor) -> Tensor:
    a = a_BN - a_BN.mean(dim=1, keepdim=True)
    b = b_BN - b_BN.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    correlation: Tensor = (a * b).sum(dim=1) / norms.clamp_min(1e-8)
    return correlation
