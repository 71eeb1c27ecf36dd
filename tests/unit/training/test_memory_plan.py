"""What a GPU holds, counted without one."""

from dataclasses import replace

import pytest
import tiny_clips
import torch

from visavis.engine.dit.costs import parameters
from visavis.engine.dit.late import LatePass
from visavis.training.memory_plan import (
    activation_bytes,
    kept_bytes,
    memory_table,
    piece_elements,
    rank_bytes,
)
from visavis.training.recipes import MODELS
from visavis.training.sharding import ShardingPlan, empty_model

LARGE = MODELS["flashtalk-14b"]


def test_the_released_size_builds_without_memory_and_is_counted() -> None:
    model = empty_model(LARGE)
    assert piece_elements(model, 1) == parameters(LARGE)
    shares = [piece_elements(model, world) for world in (2, 8, 64)]
    for world, share in zip((2, 8, 64), shares, strict=True):
        assert parameters(LARGE) <= share * world < 1.01 * parameters(LARGE)


def test_what_is_held_shrinks_with_every_gpu_and_what_comes_and_goes_does_not() -> None:
    two, eight = (
        rank_bytes(tiny_clips.CONFIG, ShardingPlan(), world, batch=1, stage=2) for world in (2, 8)
    )
    assert eight.student < two.student / 3.5
    assert (eight.activations, eight.gathered) == (two.activations, two.gathered)
    first = rank_bytes(tiny_clips.CONFIG, ShardingPlan(), 2, batch=1, stage=1)
    assert (first.critic, first.teacher, first.student) == (0, 0, two.student)
    away = rank_bytes(tiny_clips.CONFIG, ShardingPlan(offload=True), 2, batch=1, stage=2)
    assert away.on_device == two.on_device - two.student - two.critic


def test_recomputed_blocks_keep_their_input_alone() -> None:
    config = replace(tiny_clips.CONFIG, num_layers=12)
    kept = activation_bytes(config, ShardingPlan(recompute=True), 1)
    whole = activation_bytes(config, ShardingPlan(recompute=False), 1)
    assert kept < whole / 3
    assert kept_bytes(config, True, 2) == pytest.approx(2 * kept_bytes(config, True, 1), rel=0.02)


def test_the_table_names_every_part() -> None:
    lines = memory_table(tiny_clips.CONFIG, ShardingPlan(), batch=1, stage=2)
    assert all(word in lines[1] for word in ("student", "critic", "teacher", "on device"))
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.mark.parametrize("recompute", [False, True])
def test_a_late_pass_gives_the_velocity_and_gradients_of_the_plain_one(recompute: bool) -> None:
    model = tiny_clips.tiny_model()
    x = torch.randn(2, 16, 3, 4, 6)
    given = (torch.rand(2), torch.randn(2, 20, 3, 4, 6), torch.randn(2, 9, 5, 2, 8))
    context = {"text": torch.randn(2, 3, 8), "image": torch.randn(2, 3, 12)}
    outs, gradients = [], []
    for late in (None, LatePass(recompute=recompute)):
        model.late = late
        model.zero_grad()
        out = model(x, *given, **context)
        out.square().mean().backward()
        outs.append(out.detach())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*outs)
    assert len(gradients[0]) == len(list(model.parameters()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="text: this model needs it"):
        model(x, *given, image=context["image"])
