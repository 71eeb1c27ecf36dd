"""The energy score: a strictly proper loss for a few-step sampler that has data to compare with.

For a truth y and two independent samples x, x' under the same conditions,

    ES = (|x - y| + |x' - y|) / 2 - |x - x'| / 2

is least, in expectation, when x is distributed as y (Gneiting & Raftery 2007). Unlike a squared
error it does not reward the mean: motion that audio does not determine (blinks, sway) keeps its
variety, already at the sampler's first step, where a flow-matching network can only answer with the
mean.

For lips the variety is unwanted: a draw from what the audio leaves open follows the truth less well
(correlation r^2) than the mean does (r), and the median that a plain norm seeks skips short
closures. Their part is half the squared error.

The norm of a whole chunk would drown a blink in the sway of the head, so the score is summed over
parts of the face and spans of time, each a proper score of its own.

Legend: B samples, C channels, T latent frames, h w control grid, G groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_CHANNELS, TEMPORAL_STRIDE

MOUTH_MAPS = (2,)  # layout latents
EYE_MAPS = (7, 8)
_HEAD, _FACE = slice(0, 2), slice(2, 6)
_FLOOR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyWeights:
    """How much each part counts."""

    head: float = 2.0
    face: float = 0.5
    mouth: float = 2.0
    eyes: float = 4.0
    change: float = 1.0
    whole: float = 1.5
    border: float = 1.5
    # Norm at which the lips' squared error pulls as hard as a norm would.
    lip_scale: float = 2.0


def energy_score(
    first_BCThw: Tensor,
    second_BCThw: Tensor,
    truth_BCThw: Tensor,
    layout_BLhw: Tensor,
    motion_slots: int,
    weights: EnergyWeights,
) -> Tensor:
    """Mean score over samples, parts and spans (scalar).

    The first `motion_slots` latent frames are handed over, alike in all three; the change from
    them into the first generated frame is scored, too.
    """
    total = truth_BCThw.new_zeros(())
    a, b, c = first_BCThw - truth_BCThw, second_BCThw - truth_BCThw, first_BCThw - second_BCThw
    parts = [_parts(x, layout_BLhw, motion_slots, weights) for x in (a, b, c)]
    for (part, to_first), (_, to_second), (_, apart) in zip(*parts, strict=True):
        if part.scale is None:
            score = 0.5 * (to_first + to_second) - 0.5 * apart
        else:
            score = (to_first.square() + to_second.square()) / (4 * part.scale)
        total = total + part.weight * score.mean()
    return total


@dataclass(frozen=True, slots=True)
class _Part:
    weight: float
    scale: float | None = None  # of a squared error; None: an energy score


def _parts(
    difference_BCThw: Tensor, layout_BLhw: Tensor, motion_slots: int, weights: EnergyWeights
) -> list[tuple[_Part, Tensor]]:
    """Every part of a difference with its norms [B, G]."""
    frames = torch.unflatten(difference_BCThw, 1, (TEMPORAL_STRIDE, CODE_CHANNELS))
    # [B, T, 4, 6, h, w] -> pixel frames [B, 4 T, 6, h, w]
    frames = frames.permute(0, 3, 1, 2, 4, 5).flatten(1, 2)
    change = frames.diff(dim=1)[:, TEMPORAL_STRIDE * motion_slots - 1 :]
    frames = frames[:, TEMPORAL_STRIDE * motion_slots :]
    mouth = layout_BLhw[:, MOUTH_MAPS].amax(dim=1)[:, None, None]
    eyes = layout_BLhw[:, EYE_MAPS].amax(dim=1)[:, None, None]
    head, face = frames[:, :, _HEAD], frames[:, :, _FACE]
    lips = weights.lip_scale
    count = frames.shape[1]
    return [
        (_Part(weights.head), _norms(head, TEMPORAL_STRIDE)),
        (_Part(weights.face), _norms(face * (1 - mouth), TEMPORAL_STRIDE)),
        (_Part(weights.mouth, lips), _norms(face * mouth, TEMPORAL_STRIDE)),
        (_Part(weights.mouth, lips / 2), _norms(face * mouth, 1)),
        (_Part(weights.eyes), _norms(face * eyes, TEMPORAL_STRIDE)),
        (_Part(weights.change), _norms(change[:, :, _HEAD], 1)),
        (_Part(weights.change), _norms(change[:, :, _FACE] * eyes, 1)),
        (_Part(weights.change, lips / 2), _norms(change[:, :, _FACE] * mouth, 1)),
        (_Part(weights.border), _norms(change[:, :1, _HEAD], 1)),
        (_Part(weights.border, lips / 2), _norms(change[:, :1, _FACE], 1)),
        (_Part(weights.whole), _norms(head, count) / count**0.5),
        (_Part(weights.whole), _norms(face * eyes, count) / count**0.5),
    ]


def _norms(values_BNchw: Tensor, span: int) -> Tensor:
    """Euclidean norms [B, G] of spans of frames."""
    batch, count = values_BNchw.shape[:2]
    groups = max(count // span, 1)
    flat = values_BNchw[:, : groups * span].reshape(batch, groups, -1)
    norms: Tensor = (flat.square().sum(dim=2) + _FLOOR).sqrt()
    return norms
