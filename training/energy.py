"""The energy score: a strictly proper loss for a few-step sampler that has data to compare with.

For a truth y and two independent samples x, x' under the same conditions,

    ES = (|x - y| + |x' - y|) / 2 - |x - x'| / 2

is least, in expectation, when x is distributed as y (Gneiting & Raftery 2007). Unlike a squared
error it does not reward the mean: motion that audio does not determine (blinks, sway) keeps its
variety, already at the sampler's first step, where a flow-matching network can only answer with the
mean.

For lips the variety is unwanted: a draw from what the audio leaves open follows the truth less well
(correlation r^2) than the mean does (r), and the median that a plain norm seeks skips short
closures. Their part is the squared error.

Scores are taken of the controls that a code stands for (`control_probe`), one by one. The score of
a whole code hardly tells a dependence: with it, eyelids were drawn apart and every other blink was
a wink. Here the lids' difference is a quantity of its own, which audio and chance leave at zero.

Legend: B samples, C channels, T latent frames, N pixel frames, K controls, h w control grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import CODE_CHANNELS, TEMPORAL_STRIDE
from visavis.training.control_probe import FACE, LIPS, ControlProbe, Controls

_SMILE_BROW = [FACE.index(name) for name in ("smile", "brow")]
_LIDS = [FACE.index(name) for name in ("blink_l", "blink_r")]
_FLOOR = 1e-8
_LID_EDGE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyWeights:
    """How much each part counts."""

    lips: tuple[float, ...] = (3.0, 1.5, 1.0, 1.5, 2.0, 1.0)  # in the order of LIPS
    gap: float = 3.0  # of the opening that the lips' controls add up to
    lips_change: float = 2.0
    # The mean of what audio leaves open moves less than any draw does. Aiming this much beyond rest
    # gives lips the variance of real ones and costs no correlation.
    lips_gain: float = 1.2
    smile_brow: float = 2.0
    smile_brow_change: float = 4.0
    lids: float = 8.0
    lids_sum: float = 16.0
    lids_shut: float = 6.0
    wink: float = 10.0
    head: float = 8.0
    head_change: float = 12.0
    whole: float = 10.0
    border: float = 6.0  # lips
    head_border: float = 24.0
    # Changes at the borders of the chunk's latents, each of which draws by itself.
    slot_border: float = 6.0
    brow_border: float = 3.0
    # What the distance between the two samples counts more than a proper score would have it: at
    # 1.08, draws of a normal quantity settle at 1.4 times the data's variance. A model that is
    # trained for an hour falls short of the optimum by about as much.
    head_spread: float = 1.08
    lids_spread: float = 1.08
    residual: float = 1.0
    # Error of a control at which a squared error pulls as hard as a norm.
    control_scale: float = 0.15


@dataclass(frozen=True, slots=True)
class _Part:
    """One scored quantity: how much it counts, its norms [B, G, K], what the spread counts."""

    weight: float
    norms: Tensor
    spread: float = 1.0


def energy_score(
    first_BCThw: Tensor,
    second_BCThw: Tensor,
    truth_BCThw: Tensor,
    probe: ControlProbe,
    motion_slots: int,
    weights: EnergyWeights,
) -> Tensor:
    """Mean score over samples, parts and spans (scalar); `probe` is that of the batch.

    The first `motion_slots` latent frames are handed over, alike in all three; the change from
    them into the first generated frame is scored, too.
    """
    pairs = (
        first_BCThw - truth_BCThw,
        second_BCThw - truth_BCThw,
        first_BCThw - second_BCThw,
    )
    read = [probe.read(_codes(pair)) for pair in pairs]
    true_lips = _lips(probe.read(_codes(truth_BCThw)))
    rest = Controls(probe.rest[:, None], read[0].head, read[0].residual, read[0].shift)
    more = (weights.lips_gain - 1) * (true_lips - _lips(rest))
    total = _squared(read[0], more, motion_slots, weights)
    total = (total + _squared(read[1], more, motion_slots, weights)) / 2
    parts = [_distances(controls, motion_slots, weights) for controls in read]
    shut = [_shut(probe.read(_codes(x)), motion_slots) for x in (first_BCThw, second_BCThw)]
    true_shut = _shut(probe.read(_codes(truth_BCThw)), motion_slots)
    for one, other, true in zip(*shut, true_shut, strict=True):
        to_truth = 0.5 * (one - true).abs() + 0.5 * (other - true).abs()
        score = to_truth - 0.5 * weights.lids_spread * (one - other).abs()
        total = total + weights.lids_shut * score.mean()
    for first, second, apart in zip(*parts, strict=True):
        score = 0.5 * (first.norms + second.norms) - 0.5 * apart.spread * apart.norms
        total = total + apart.weight * score.mean()
    return total


def _codes(latents_BCThw: Tensor) -> Tensor:
    """[B, C, T, h, w] -> [B, 4 T, 6, h, w]; the first latent frame's code four times."""
    frames = torch.unflatten(latents_BCThw, 1, (TEMPORAL_STRIDE, CODE_CHANNELS))
    return frames.permute(0, 3, 1, 2, 4, 5).flatten(1, 2)


def _lips(controls: Controls) -> Tensor:
    """The lips' controls and their gap [B, N, 7]."""
    return torch.cat([controls.face[..., : len(LIPS)], controls.gap[..., None]], dim=2)


def _shut(controls: Controls, motion_slots: int) -> tuple[Tensor, Tensor]:
    """How shut the eyes are: the chunk's deepest [B], and frames [B] beyond half, softly counted.

    Lids that close half-way, twice as often, give each frame nearly the right distribution.
    """
    lids = controls.face[:, TEMPORAL_STRIDE * motion_slots :, _LIDS].mean(dim=2)
    beyond = torch.sigmoid((lids - 0.5) / _LID_EDGE)
    return lids.amax(dim=1), beyond.sum(dim=1) / 2


def _squared(
    error: Controls, more_BNK: Tensor, motion_slots: int, weights: EnergyWeights
) -> Tensor:
    """Squared errors: lips, the lids' difference, and what no control explains.

    `more_BNK` is how much further than the truth the lips are to go.
    """
    first = TEMPORAL_STRIDE * motion_slots
    lips, lids = _lips(error), error.face[..., _LIDS]
    lips = torch.cat([lips[:, :first], lips[:, first:] - more_BNK[:, first:]], dim=1)
    each = lips.new_tensor((*weights.lips, weights.gap))
    change = lips[:, first - 1 :].diff(dim=1)
    slip = (lips[:, first:].square() * each).mean() * len(LIPS)
    jerk = (change.square() * each).mean() * len(LIPS)
    start = (change[:, :1].square() * each).mean() * len(LIPS)
    wink = (lids[:, first:, 0] - lids[:, first:, 1]).square().mean()
    residual = error.residual[:, first:].square().sum(dim=(2, 3, 4)).mean()
    controls = slip + weights.lips_change * jerk + weights.border * start + weights.wink * wink
    return controls / (2 * weights.control_scale) + weights.residual * residual / 2


def _distances(difference: Controls, motion_slots: int, weights: EnergyWeights) -> list[_Part]:
    """Everything that chance has a part in."""
    first = TEMPORAL_STRIDE * motion_slots
    lids = difference.face[..., _LIDS].mean(dim=2, keepdim=True)
    free = difference.face[..., _SMILE_BROW]
    head = torch.cat([difference.head, difference.shift], dim=2)
    # Changes from frame to frame keep the proper score: more spread there would be a tremor.
    head_change = head[:, first - 1 :].diff(dim=1)
    lids_change = lids[:, first - 1 :].diff(dim=1)
    free_change = free[:, first - 1 :].diff(dim=1)
    # Those into a latent's first frame; the first of all is the chunk's own border.
    slot_change, brow_change = head_change[:, ::TEMPORAL_STRIDE], free_change[:, ::TEMPORAL_STRIDE]
    head, lids, free = head[:, first:], lids[:, first:], free[:, first:]
    count = head.shape[1]
    wide, wider = weights.lids_spread, weights.head_spread
    return [
        _Part(weights.lids, _norms(lids, TEMPORAL_STRIDE), wide),
        _Part(weights.lids, _norms(lids_change, 1)),
        _Part(weights.lids, _norms(lids, count) / 2, wide),
        # How much they shut in all, whenever: a rare event at a time that nothing tells is never
        # worth drawing frame by frame (what it gains where it hits, it loses where it misses).
        _Part(weights.lids_sum, _norms(lids.sum(dim=1, keepdim=True), 1) / 2, wide),
        _Part(weights.smile_brow, _norms(free, TEMPORAL_STRIDE)),
        _Part(weights.smile_brow, _norms(free, count) / 2),
        _Part(weights.smile_brow_change, _norms(free_change, 1)),
        _Part(weights.brow_border, _norms(brow_change, 1)),
        _Part(weights.head, _norms(head, TEMPORAL_STRIDE), wider),
        _Part(weights.head_change, _norms(head_change, 1)),
        _Part(weights.head_border, _norms(head_change[:, :1], 1)),
        _Part(weights.slot_border, _norms(slot_change, 1)),
        _Part(weights.whole, _norms(head, count) / 2, wider),
        _Part(weights.whole, _norms(head.mean(dim=1, keepdim=True), 1), wider),
        _Part(weights.whole, torch.linalg.vector_norm(head, dim=2, keepdim=True), wider),
    ]


def _norms(values_BNK: Tensor, span: int) -> Tensor:
    """Euclidean norms [B, G, K] of spans of frames, control by control."""
    batch, count, controls = values_BNK.shape
    groups = max(count // span, 1)
    spans = values_BNK[:, : groups * span].reshape(batch, groups, -1, controls)
    norms: Tensor = (spans.square().sum(dim=2) + _FLOOR).sqrt()
    return norms
