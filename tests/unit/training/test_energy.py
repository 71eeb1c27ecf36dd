"""The energy score: what it is least for, and where it pushes."""

import pytest
import torch
from torch import Tensor

from visavis.training.energy import EnergyWeights, energy_score

# Without what makes an exception of the lips, and on a face whose mouth is nowhere.
PROPER = EnergyWeights(mouth=0, border=0)
LIPS_ALONE = EnergyWeights(head=0, face=0, eyes=0, change=0, whole=0, border=0)
SLOTS = 1


def layout(batch: int, *, mouth: float = 0.0, eyes: float = 0.5) -> Tensor:
    maps = torch.zeros(batch, 16, 2, 2)
    maps[:, 2], maps[:, 7:9] = mouth, eyes
    return maps


def draw(batch: int, seed: int, *, mean: float = 0.0, spread: float = 1.0) -> Tensor:
    """Latents [B, 24, 2, 2, 2] whose first slot is handed over and whose second is Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.zeros(batch, 24, 2, 2, 2)
    latents[:, :, 1] = mean + spread * torch.randn(batch, 24, 2, 2, generator=generator)
    return latents


def expected_score(
    mean: float, spread: float, weights: EnergyWeights = PROPER, *, mouth: float = 0.0
) -> float:
    """Monte Carlo score of a Gaussian sampler where the truth is N(0, 1)."""
    batch = 2000
    samples = [draw(batch, seed, mean=mean, spread=spread) for seed in (1, 2)]
    face = layout(batch, mouth=mouth)
    return float(energy_score(*samples, draw(batch, 3), face, SLOTS, weights))


def test_the_truths_own_distribution_scores_best() -> None:
    best = expected_score(0.0, 1.0)
    for mean, spread in ((0.0, 0.0), (0.0, 0.7), (0.0, 1.3), (0.4, 1.0), (-0.4, 1.0)):
        assert expected_score(mean, spread) > best


def test_for_the_lips_the_mean_scores_best() -> None:
    scores = [expected_score(0.0, spread, LIPS_ALONE, mouth=1.0) for spread in (0.0, 0.5, 1.0)]
    assert scores[0] < scores[1] < scores[2]
    assert expected_score(0.3, 0.0, LIPS_ALONE, mouth=1.0) > scores[0]


def test_samples_equal_to_the_truth_score_nothing() -> None:
    truth = draw(4, 0)
    assert float(energy_score(truth, truth, truth, layout(4), SLOTS, PROPER)) < 0.02


def test_two_samples_are_pushed_apart() -> None:
    truth = draw(64, 0)
    first = torch.zeros_like(truth)
    second = first + 0.01 * draw(64, 5)
    samples = [x.clone().requires_grad_() for x in (first, second)]
    energy_score(samples[0], samples[1], truth, layout(64), SLOTS, PROPER).backward()
    assert samples[0].grad is not None
    assert samples[1].grad is not None
    step = 10.0
    moved = [x.detach() - step * x.grad for x in samples if x.grad is not None]
    before = (samples[0] - samples[1]).detach().flatten(1).norm(dim=1)
    after = (moved[0] - moved[1]).flatten(1).norm(dim=1)
    assert (after > before).all()


def test_samples_are_drawn_to_the_truth() -> None:
    truth = torch.zeros(8, 24, 2, 2, 2)
    truth[:, :, 1] = 3.0
    samples = [(0.1 * draw(8, seed)).requires_grad_() for seed in (1, 2)]
    energy_score(samples[0], samples[1], truth, layout(8), SLOTS, PROPER).backward()
    for sample in samples:
        assert sample.grad is not None
        assert (sample.grad[:, :, 1].flatten(1).mean(dim=1) < 0).all()


@pytest.mark.parametrize("channel", [0, 3])
def test_a_jump_from_the_history_costs_more_by_the_borders_weight(channel: int) -> None:
    truth = torch.zeros(1, 24, 2, 2, 2)
    for frame, dearer in ((0, True), (3, False)):
        sample = truth.clone()
        sample[:, 6 * frame + channel, 1] = 1.0
        without, with_border = (
            float(energy_score(sample, sample, truth, layout(1), SLOTS, EnergyWeights(border=b)))
            for b in (0.0, 2.0)
        )
        assert (with_border > without + 0.1) is dearer


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
        scores.append(float(energy_score(*samples, t, layout(2), SLOTS, PROPER)))
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
