"""The re-noising sampler's laws, whatever the model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.dit.sampler import ChunkAbandoned, RenoisingSampler, SamplerError, timesteps

SHAPE = (3, 4, 2, 2)
MOTION = torch.full((3, 2, 2, 2), 7.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zero(latents: Tensor, at: Tensor) -> Tensor:
    return torch.zeros_like(latents)


def test_schedules_are_those_of_the_released_model() -> None:
    assert timesteps(4) == pytest.approx((1.0, 0.9375, 5 / 6, 0.625, 0.0))
    assert timesteps(2) == pytest.approx((1.0, 5 / 6, 0.0))


@settings(deadline=None)
@given(st.integers(1, 100), st.floats(0.1, 20))
def test_schedule_falls_from_one_to_zero(num_steps: int, shift: float) -> None:
    levels = timesteps(num_steps, shift)
    assert levels[0] == 1
    assert levels[-1] == 0
    assert all(a > b for a, b in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("num_steps", [0, -1, 101])
def test_impossible_step_count_is_refused(num_steps: int) -> None:
    with pytest.raises(SamplerError, match="num_steps"):
        timesteps(num_steps)


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_motion_latents_enter_every_call_and_the_result(num_steps: int) -> None:
    calls = []

    def velocity(latents: Tensor, at: Tensor) -> Tensor:
        calls.append(at.item())
        assert torch.equal(latents[0, :, :2], MOTION)
        return torch.randn(latents.shape)

    out = RenoisingSampler().sample(velocity, SHAPE, MOTION, seeded(), num_steps=num_steps)
    assert calls == pytest.approx(list(timesteps(num_steps)[:-1]))
    assert torch.equal(out[:, :2], MOTION)


def test_exact_velocity_recovers_the_data() -> None:
    data = torch.randn(SHAPE, generator=seeded(5))
    data[:, :2] = MOTION

    def velocity(latents: Tensor, at: Tensor) -> Tensor:
        return (latents - data) / at  # noise - data, since x = (1 - t) data + t noise

    out = RenoisingSampler().sample(velocity, SHAPE, MOTION, seeded())
    torch.testing.assert_close(out, data)


def test_draw_order_is_the_initial_noise_then_one_a_step() -> None:
    generator, twin = seeded(9), seeded(9)
    seen = []

    def velocity(latents: Tensor, at: Tensor) -> Tensor:
        seen.append(latents[0, :, 2:].clone())
        return latents / at  # predicts zero: what is left is the fresh noise

    RenoisingSampler().sample(velocity, SHAPE, MOTION, generator)
    draws = [torch.randn(SHAPE, generator=twin) for _ in range(5)]
    for latents, draw, level in zip(seen, draws, timesteps(4), strict=False):
        torch.testing.assert_close(latents, draw[:, 2:] * level, atol=1e-5, rtol=1e-5)
    assert torch.equal(generator.get_state(), twin.get_state())


def test_same_seed_same_chunk() -> None:
    one = RenoisingSampler().sample(zero, SHAPE, MOTION, seeded(1))
    two = RenoisingSampler().sample(zero, SHAPE, MOTION, seeded(1))
    other = RenoisingSampler().sample(zero, SHAPE, MOTION, seeded(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_batch_has_the_shape_asked_for() -> None:
    out = RenoisingSampler().sample(zero, (2, *SHAPE), MOTION, seeded())
    assert out.shape == (2, *SHAPE)
    assert torch.equal(out[1, :, :2], MOTION)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_stop_is_asked_before_every_step(allowed: int) -> None:
    calls = []

    def velocity(latents: Tensor, at: Tensor) -> Tensor:
        calls.append(at)
        return latents

    with pytest.raises(ChunkAbandoned):
        RenoisingSampler().sample(
            velocity, SHAPE, MOTION, seeded(), should_stop=lambda: len(calls) == allowed
        )
    assert len(calls) == allowed


def test_motion_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SamplerError, match="motion_latents"):
        RenoisingSampler().sample(zero, SHAPE, torch.zeros(3, 5, 2, 2), seeded())
