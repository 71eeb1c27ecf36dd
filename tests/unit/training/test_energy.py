"""The energy score: what it is least for, and where it pushes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes
from visavis.training.control_probe import FACE, LIPS, ControlProbe
from visavis.training.energy import EnergyWeights, energy_score
from visavis.training.puppets.basis import WEIGHTS

NO_LIPS = (0.0,) * len(LIPS)
# Without what makes exceptions: lips, the lids' difference, the border.
PROPER = EnergyWeights(
    lips=NO_LIPS,
    gap=0,
    wink=0,
    border=0,
    head_spread=1,
    lids_spread=1,
    residual=0,
)
LIPS_ALONE = EnergyWeights(
    smile_brow=0,
    brow_border=0,
    lids=0,
    wink=0,
    head=0,
    head_change=0,
    slot_border=0,
    whole=0,
    border=0,
    residual=0,
)
SLOTS = 1
FRAMES = 9
GENERATOR = torch.Generator().manual_seed(0)
BASIS = torch.randn(1, len(WEIGHTS), 6, 4, 4, generator=GENERATOR)
BASIS[:, WEIGHTS.index("lower_lip_up")] = 0
_IS_HEAD = torch.tensor([n in ("yaw", "pitch", "roll", "tx", "ty", "zoom") for n in WEIGHTS])
BASIS[:, _IS_HEAD, 2:] = 0
BASIS[:, ~_IS_HEAD, :2] = 0
PROBE = ControlProbe.from_basis(BASIS)


def probe(batch: int) -> ControlProbe:
    return PROBE.of(torch.zeros(batch, dtype=torch.int64))


def latents(weights_BNK: Tensor) -> Tensor:
    """Latents of basis weights; frame 0 is handed over and still."""
    weights = weights_BNK.clone()
    weights[:, 0] = 0
    return pack_codes(torch.einsum("bnk,kchw->bnchw", weights, BASIS[0]))


def draw(batch: int, seed: int, *, mean: float = 0.0, spread: float = 1.0) -> Tensor:
    """Latents whose weights are Gaussian; both lids shut alike."""
    generator = torch.Generator().manual_seed(seed)
    weights = mean + spread * torch.randn(batch, FRAMES, len(WEIGHTS), generator=generator)
    weights[..., WEIGHTS.index("blink_r")] = weights[..., WEIGHTS.index("blink_l")]
    return latents(weights)


def expected_score(mean: float, spread: float, weights: EnergyWeights = PROPER) -> float:
    """Monte Carlo score of a Gaussian sampler where the truth is N(0, 1)."""
    batch = 400
    samples = [draw(batch, seed, mean=mean, spread=spread) for seed in (1, 2)]
    return float(energy_score(*samples, draw(batch, 3), probe(batch), SLOTS, weights))


def one_control(name: str, frame: int, value: float = 1.0, batch: int = 1) -> Tensor:
    weights = torch.zeros(batch, FRAMES, len(WEIGHTS))
    weights[:, frame, WEIGHTS.index(name)] = value
    return latents(weights)


def test_the_truths_own_distribution_scores_best() -> None:
    best = expected_score(0.0, 1.0)
    for mean, spread in ((0.0, 0.0), (0.0, 0.7), (0.0, 1.4), (0.5, 1.0), (-0.5, 1.0)):
        assert expected_score(mean, spread) > best


def test_controls_that_cancel_each_other_score_worse_than_those_that_move_together() -> None:
    """The same two marginals each time: only what the whole head does tells them apart."""

    def turning(seed: int, sign: float) -> Tensor:
        yaw = torch.randn(400, generator=torch.Generator().manual_seed(seed))
        weights = torch.zeros(400, FRAMES, len(WEIGHTS))
        weights[..., WEIGHTS.index("yaw")] = yaw[:, None]
        weights[..., WEIGHTS.index("tx")] = sign * yaw[:, None]
        return pack_codes(torch.einsum("bnk,kchw->bnchw", weights, aligned))

    aligned = BASIS[0].clone()
    aligned[WEIGHTS.index("tx"), :2] = 0.9 * aligned[WEIGHTS.index("yaw"), :2] + 0.1
    aligned_probe = ControlProbe.from_basis(aligned[None]).of(torch.zeros(400, dtype=torch.int64))
    truth = turning(3, 1.0)
    together, against = (
        float(energy_score(turning(1, sign), turning(2, sign), truth, aligned_probe, SLOTS, PROPER))
        for sign in (1.0, -1.0)
    )
    assert against > 1.1 * together


def test_lids_that_close_half_as_far_and_twice_as_often_score_worse() -> None:
    def blinking(seed: int, depth: float, share: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.zeros(400, FRAMES, len(WEIGHTS))
        shut = depth * (torch.rand(400, generator=generator) < share).float()
        for name in ("blink_l", "blink_r"):
            weights[:, 4:7, WEIGHTS.index(name)] = shut[:, None]
        return latents(weights)

    truth = blinking(3, 1.0, 0.3)
    scores = {}
    for lids_shut in (0.0, PROPER.lids_shut):
        weights = replace(PROPER, lids_shut=lids_shut)
        full, half = (
            float(energy_score(blinking(1, d, s), blinking(2, d, s), truth, probe(400), 1, weights))
            for d, s in ((1.0, 0.3), (0.5, 0.6))
        )
        scores[lids_shut] = half - full
    assert scores[PROPER.lids_shut] > scores[0.0] + 0.5
    assert scores[PROPER.lids_shut] > 0


def test_for_the_lips_the_mean_scores_best() -> None:
    scores = [expected_score(0.0, spread, LIPS_ALONE) for spread in (0.0, 0.5, 1.0)]
    assert scores[0] < scores[1] < scores[2]
    assert expected_score(0.3, 0.0, LIPS_ALONE) > scores[0]


def test_samples_equal_to_the_truth_score_nothing() -> None:
    truth = draw(4, 0)
    weights = EnergyWeights(lips_gain=1.0)
    assert float(energy_score(truth, truth, truth, probe(4), SLOTS, weights)) < 0.02


def test_the_gain_aims_beyond_the_truth_and_leaves_rest_alone() -> None:
    weights = replace(LIPS_ALONE, lips_change=0, lips_gain=1.2)

    def score(sample: float, truth: float) -> float:
        one, other = (one_control("jaw", 5, value) for value in (sample, truth))
        return float(energy_score(one, one, other, probe(1), SLOTS, weights))

    assert score(0.6, 0.5) < score(0.5, 0.5)
    assert score(0.6, 0.5) < score(0.7, 0.5)
    assert score(0.0, 0.0) < 0.002  # the norms' floor


def test_two_samples_are_pushed_apart() -> None:
    truth = draw(64, 0)
    first = torch.zeros_like(truth)
    second = first + 0.01 * draw(64, 5)
    samples = [x.clone().requires_grad_() for x in (first, second)]
    weights = replace(PROPER, residual=0)
    energy_score(samples[0], samples[1], truth, probe(64), SLOTS, weights).backward()
    assert samples[0].grad is not None
    assert samples[1].grad is not None
    moved = [x.detach() - 10.0 * x.grad for x in samples if x.grad is not None]
    before = (samples[0] - samples[1]).detach().flatten(1).norm(dim=1)
    after = (moved[0] - moved[1]).flatten(1).norm(dim=1)
    assert (after > before).all()


def test_a_wink_costs_more_than_a_blink() -> None:
    open_eyes = torch.zeros_like(draw(1, 0))
    wink = one_control("blink_l", 5)
    blink = one_control("blink_l", 5, 0.5) + one_control("blink_r", 5, 0.5)
    scores = [
        float(energy_score(x, x, open_eyes, probe(1), SLOTS, EnergyWeights()))
        for x in (wink, blink)
    ]
    assert scores[0] > scores[1] + 0.1


@pytest.mark.parametrize("name", ["yaw", "jaw"])
def test_a_jump_from_the_history_costs_more_by_the_borders_weight(name: str) -> None:
    truth = torch.zeros_like(draw(1, 0))
    for frame, dearer in ((1, True), (4, False)):
        sample = one_control(name, frame)
        without, with_border = (
            float(energy_score(sample, sample, truth, probe(1), SLOTS, weights))
            for weights in (EnergyWeights(border=b, head_border=b) for b in (0.0, 2.0))
        )
        assert (with_border > without + 0.1) is dearer


@pytest.mark.parametrize("name", ["yaw", "brow"])
def test_a_jump_between_latents_costs_more_by_its_own_weight(name: str) -> None:
    truth = torch.zeros_like(draw(1, 0))
    for frame, dearer in ((5, True), (4, True), (2, False), (6, False)):
        sample = one_control(name, frame)
        without, with_border = (
            float(energy_score(sample, sample, truth, probe(1), SLOTS, weights))
            for weights in (EnergyWeights(slot_border=b, brow_border=b) for b in (0.0, 2.0))
        )
        assert (with_border > without + 0.1) is dearer


def test_a_chunk_of_one_latent_has_no_border_within() -> None:
    samples = [draw(2, seed)[:, :, :2] for seed in (1, 2, 3)]
    assert torch.isfinite(energy_score(*samples, probe(2), SLOTS, EnergyWeights()))


def test_handed_over_frames_are_not_scored() -> None:
    truth = draw(2, 0)
    other = truth.clone()
    other[:, :18, 0] += 5.0  # all but the last frame, whose change into the chunk is scored
    one, two = draw(2, 1), draw(2, 2)
    scores = []
    for t in (truth, other):
        samples = [x.clone() for x in (one, two)]
        for sample in samples:
            sample[:, :, 0] = t[:, :, 0]
        scores.append(float(energy_score(*samples, t, probe(2), SLOTS, EnergyWeights())))
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_the_probe_reads_back_the_controls_and_leaves_the_rest() -> None:
    weights = torch.randn(1, 3, len(WEIGHTS), generator=torch.Generator().manual_seed(1))
    weights[..., WEIGHTS.index("lower_lip_up")] = 0
    codes = torch.einsum("bnk,kchw->bnchw", weights, BASIS[0])
    read = probe(1).read(codes)
    expected = weights[..., [WEIGHTS.index(name) for name in FACE]]
    torch.testing.assert_close(read.face, expected, atol=0.02, rtol=0.02)
    assert read.residual.abs().max() < 0.05
    stranger = torch.randn(1, 3, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    assert probe(1).read(stranger).residual.norm() > 0.5 * stranger.norm()
