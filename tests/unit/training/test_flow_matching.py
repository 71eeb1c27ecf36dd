"""Flow matching: convention, schedule, slots, loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.engine.dit.sampler import timesteps
from visavis.training.flow_matching import (
    add_noise,
    clean_from_velocity,
    draw_times,
    flow_matching_loss,
    impose_motion,
    shift_time,
    supervised_slots,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_shift_gives_the_deployed_schedule() -> None:
    raw = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    assert shift_time(raw).tolist() == pytest.approx(list(timesteps(4)))
    assert shift_time(raw).tolist() == pytest.approx([1, 0.9375, 5 / 6, 0.625, 0])


@settings(deadline=None, max_examples=25)
@given(t=st.floats(0.02, 1.0), seed=st.integers(0, 1000))
def test_the_true_velocity_gives_back_the_clean_latents(t: float, seed: int) -> None:
    draw = generator(seed)
    clean, noise = torch.randn(2, 1, 24, 3, 4, 4, generator=draw)
    times = torch.tensor([t])
    noisy = add_noise(clean, noise, times)
    torch.testing.assert_close(
        clean_from_velocity(noisy, noise - clean, times), clean, atol=1e-5, rtol=0
    )


def test_times_cover_both_ends_and_crowd_towards_noise() -> None:
    times = draw_times(4096, generator())
    assert times.min() >= 0.02
    assert times.max() <= 1.0
    assert 0.7 < times.median() < 0.9
    assert (times < 0.2).float().mean() > 0.03


def test_motion_slots_are_imposed_and_not_supervised() -> None:
    supervised = supervised_slots(torch.tensor([1, 2]), 5)
    assert supervised[:, 0, :, 0, 0].tolist() == [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    noisy, motion = torch.zeros(2, 24, 5, 4, 4), torch.ones(2, 24, 5, 4, 4)
    imposed = impose_motion(noisy, motion, supervised)
    assert imposed[1, 0, :, 0, 0].tolist() == [1, 1, 0, 0, 0]


def loss(error: torch.Tensor, motion: int = 2, focus: torch.Tensor | None = None) -> torch.Tensor:
    supervised = supervised_slots(torch.full((len(error),), motion), error.shape[2])
    cells = torch.ones(len(error), 4, 4) if focus is None else focus
    zero = torch.zeros_like(error)
    times = torch.ones(len(error))
    return flow_matching_loss(error, zero, times, supervised, cells, temporal_weight=0).total


def test_loss_is_the_mean_over_generated_slots_alone() -> None:
    error = torch.ones(3, 24, 5, 4, 4)
    error[:, :, :2] = 100
    assert float(loss(error)) == pytest.approx(1.0)


def test_gradient_is_exactly_zero_in_motion_slots() -> None:
    error = torch.randn(2, 24, 5, 4, 4, generator=generator()).requires_grad_()
    loss(error).backward()
    assert error.grad is not None
    assert not error.grad[:, :, :2].any()
    assert error.grad[:, :, 2:].abs().min() > 0


def test_focus_weights_an_error_where_it_points() -> None:
    focus = torch.full((1, 4, 4), 0.5)
    focus[0, 1, 2] = 8.5
    here, there = torch.zeros(2, 1, 24, 5, 4, 4)
    here[..., 1, 2] = 1
    there[..., 3, 3] = 1
    ratio = loss(here, focus=focus) / loss(there, focus=focus)
    assert float(ratio) == pytest.approx(17.0)


def test_temporal_term_sees_a_jump_at_the_border_and_no_constant_drift_after_it() -> None:
    supervised = supervised_slots(torch.tensor([2]), 5)
    offset = torch.ones(1, 24, 5, 4, 4)
    losses = flow_matching_loss(
        offset, torch.zeros_like(offset), torch.ones(1), supervised, torch.ones(1, 4, 4)
    )
    # One change of 1 in each of the six code channels, over 3 slots of 24 channels.
    assert float(losses.temporal) == pytest.approx(6 / (3 * 24))


def test_small_times_are_tempered() -> None:
    error = torch.ones(1, 24, 3, 4, 4)
    supervised = supervised_slots(torch.tensor([2]), 3)
    at = [
        float(
            flow_matching_loss(
                error, 0 * error, torch.tensor([t]), supervised, torch.ones(1, 4, 4)
            ).velocity
        )
        for t in (0.03, 0.3, 1.0)
    ]
    np.testing.assert_allclose(at, [0.01, 1, 1], rtol=1e-5)
