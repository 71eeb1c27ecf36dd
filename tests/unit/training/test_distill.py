"""Distribution matching: signs, fixed points, and what may not carry gradient."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.distill import Distillation
from visavis.training.distribution_matching import (
    alignment_loss,
    critic_loss,
    draw_levels,
    lip_regression,
    matching_gradient,
    matching_loss,
    step_range,
)
from visavis.training.dit_data import SequenceBatch
from visavis.training.flow_matching import supervised_slots
from visavis.training.hearing import Hearing
from visavis.training.parallel import Workers
from visavis.training.recipes import MODELS, smoke_student
from visavis.training.rollout import ChunkConditions
from visavis.training.run_models import averaged_model, copy_model
from visavis.training.self_rollout import (
    RoundPlan,
    network_evaluations,
    plan_round,
    reach_last_chunk,
    sequence_frames,
)

SHAPE = (2, 24, 3, 16, 16)


def conditions() -> ChunkConditions:
    return ChunkConditions(torch.ones(2, 9, 5, 4, 64), torch.zeros(2, 16, 16, 16))


def gaussian(mean: float, silent_mean: float | None = None):  # type: ignore[no-untyped-def]
    """The exact velocity of data N(mean, 1); another mean when the audio is silent."""

    def velocity(x: Tensor, times: Tensor, cond: Tensor, audio: Tensor, *, image: Tensor) -> Tensor:
        m = mean if silent_mean is None or audio.any() else silent_mean
        t = times.view(-1, 1, 1, 1, 1)
        clean = m + (1 - t) / ((1 - t) ** 2 + t**2) * (x - (1 - t) * m)
        return (x - clean) / t

    return velocity


def gradient(sample: Tensor, teacher, critic, guidance: float = 1.0) -> Tensor:  # type: ignore[no-untyped-def]
    return matching_gradient(
        sample,
        torch.full((2,), 0.6),
        supervised_slots(torch.tensor([1, 2]), 3),
        conditions(),
        teacher,
        critic,
        torch.Generator().manual_seed(0),
        audio_guidance=guidance,
    )


def test_gradient_vanishes_when_critic_equals_teacher() -> None:
    assert not gradient(torch.randn(SHAPE), gaussian(1.0), gaussian(1.0)).any()


def test_gradient_is_zero_in_motion_slots() -> None:
    result = gradient(torch.randn(SHAPE), gaussian(1.0), gaussian(0.0))
    assert not result[0, :, :1].any()
    assert not result[1, :, :2].any()
    assert result[:, :, 2:].abs().min() > 0


def test_the_sample_moves_from_the_critics_mean_to_the_teachers() -> None:
    mean = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([mean], lr=0.3)
    supervised = supervised_slots(torch.tensor([1, 1]), 3)
    for _ in range(60):
        sample = torch.randn(SHAPE) + mean
        # The critic of this one-parameter student is known exactly.
        towards = gradient(sample.detach(), gaussian(2.0), gaussian(float(mean.detach())))
        optimizer.zero_grad()
        matching_loss(sample, towards, supervised).backward()
        optimizer.step()
    assert float(mean.detach()) == pytest.approx(2.0, abs=0.2)


def test_guidance_extrapolates_from_silence_and_one_is_none() -> None:
    sample = torch.randn(SHAPE)
    plain = gradient(sample, gaussian(1.0), gaussian(0.0))
    same = gradient(sample, gaussian(1.0, silent_mean=0.5), gaussian(0.0), guidance=1.0)
    guided = gradient(sample, gaussian(1.0, silent_mean=0.5), gaussian(0.0), guidance=2.0)
    assert torch.equal(plain, same)
    # x_real at guidance 2 is that of mean 1.5; the direction stays, the normaliser differs.
    expected = gradient(sample, gaussian(1.5), gaussian(0.0))
    torch.testing.assert_close(guided, expected)


def test_matching_loss_has_the_gradient_over_the_element_count() -> None:
    sample = torch.randn(SHAPE, requires_grad=True)
    wanted = torch.randn(SHAPE)
    supervised = supervised_slots(torch.tensor([1, 1]), 3)
    matching_loss(sample, wanted, supervised).backward()
    assert sample.grad is not None
    count = 2 * 2 * 24 * 256
    torch.testing.assert_close(sample.grad, wanted * supervised / count)


def test_a_perfect_critic_has_the_least_loss() -> None:
    sample = torch.randn(SHAPE)
    arguments = (torch.full((2,), 0.5), supervised_slots(torch.tensor([1, 1]), 3), conditions())
    losses = [
        float(critic_loss(sample, *arguments, gaussian(m), torch.Generator().manual_seed(0)))
        for m in (-0.5, 0.0, 0.5)
    ]
    assert min(losses) == losses[1]


def test_lip_regression_ignores_head_lids_and_history() -> None:
    truth = torch.zeros(SHAPE)
    lips = torch.zeros(2, 16, 16)
    lips[:, 10, 8] = 1
    supervised = supervised_slots(torch.tensor([1, 1]), 3)
    elsewhere = torch.zeros(SHAPE)
    elsewhere[:, [0, 1, 6, 7]] = 9  # head flow
    elsewhere[:, :, :, 3] = 9  # eyes
    elsewhere[:, :, 0] = 9  # motion slot
    assert float(lip_regression(elsewhere, truth, supervised, lips)) == 0
    assert float(lip_regression(truth + 1, truth, supervised, lips)) == pytest.approx(1.0)


def test_levels_stay_in_their_range() -> None:
    levels = draw_levels(
        1000, torch.Generator().manual_seed(0), shift=5.0, smallest=0.02, largest=0.98
    )
    assert levels.min() >= 0.02
    assert levels.max() <= 0.98


def test_levels_of_a_step_lie_between_it_and_the_next() -> None:
    ends = [step_range(step, 4) for step in range(4)]
    assert ends == [(0.75, 1.0), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25)]
    levels = draw_levels(
        1000,
        torch.Generator().manual_seed(0),
        shift=5.0,
        smallest=0.02,
        largest=0.98,
        raw_range=ends[1],
    )
    assert levels.min() >= 0.8333
    assert levels.max() <= 0.9375


def test_alignment_pushes_the_motion_slots_alone_and_one_strength_everywhere() -> None:
    motion = torch.zeros(2, 24, 1, 16, 16)
    clean = torch.ones(SHAPE)
    clean[1] *= 5
    clean.requires_grad_()
    alignment_loss(clean, motion).backward()
    assert clean.grad is not None
    assert not clean.grad[:, :, 1:].any()
    first, second = clean.grad[0, :, 0], clean.grad[1, :, 0]
    assert first.min() > 0
    torch.testing.assert_close(first, second)


def test_a_fixed_roll_out_draws_the_same_steps_and_starts_as_a_random_one() -> None:
    random = replace(smoke_student(), max_chunks=5, num_steps=4)
    fixed = replace(random, random_chunks=False)
    plans = [(plan_round(random, step), plan_round(fixed, step)) for step in range(200)]
    assert {a.chunks for a, _ in plans} == {1, 2, 3, 4, 5}
    assert {b.chunks for _, b in plans} == {5}
    assert all((a.exit_step, a.from_portrait) == (b.exit_step, b.from_portrait) for a, b in plans)


def test_evaluations_are_those_that_a_round_makes() -> None:
    job, calls = distillation(), 0

    def counted(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1

    for network in (job.model, job.teacher, job.critic):
        network.register_forward_hook(counted)
    plan = plan_round(job.recipe, 0)
    job.round(OneBatch())  # type: ignore[arg-type]
    # A backward pass counts two: one of the student, one a critic's update.
    backward = 2 * (1 + job.recipe.critic_updates)
    assert network_evaluations(job.recipe, plan) == calls + backward
    longer = RoundPlan(plan.chunks + 2, plan.exit_step, plan.from_portrait)
    more = network_evaluations(job.recipe, longer) - network_evaluations(job.recipe, plan)
    assert more == 2 * job.recipe.num_steps


def sequences(chunks: int) -> SequenceBatch:
    frames = sequence_frames(chunks)
    return SequenceBatch(
        codes=torch.randn(2, frames, 6, 16, 16),
        mel=torch.randn(2, Hearing().lead + frames, 4, 64),
        layout=torch.randn(2, 16, 16, 16),
        lips=torch.rand(2, 16, 16),
        portraits=torch.zeros(2, dtype=torch.int64),
    )


def teacher() -> FlashTalkDiT:
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"], attention_impl="plain")
    torch.nn.init.normal_(model.head.projection.weight, std=0.02)
    for block in model.blocks:  # gates are shut at first
        torch.nn.init.normal_(block.modulation, std=0.3)
    return model


@pytest.mark.parametrize(("chunks", "slots"), [(1, 1), (3, 2)])
def test_earlier_chunks_leave_history_and_no_gradient(chunks: int, slots: int) -> None:
    last = reach_last_chunk(
        teacher(),
        Hearing(),
        sequences(chunks),
        chunks,
        torch.Generator().manual_seed(0),
        num_steps=2,
        from_portrait=True,
    )
    assert last.motion.shape[2] == slots
    assert not last.motion.requires_grad
    assert last.truth.shape[2] == 9
    assert last.conditions.audio.shape[1] == 33


class OneBatch:
    """Windows that always give the same sequences."""

    hearing = Hearing()

    def draw_sequences(self, *_: object, from_portrait: bool) -> SequenceBatch:
        torch.manual_seed(1)
        return sequences(1)


def distillation() -> Distillation:
    recipe = replace(smoke_student(), max_chunks=1, num_steps=2, bf16=False)
    return Distillation(recipe, teacher(), Workers())


def test_a_round_trains_student_and_critic_and_leaves_the_teacher() -> None:
    job = distillation()
    before = {k: v.clone() for k, v in job.teacher.state_dict().items()}
    job.round(OneBatch())  # type: ignore[arg-type]
    start = before["head.projection.weight"]
    assert not torch.equal(job.model.head.projection.weight, start)
    assert not torch.equal(job.critic.head.projection.weight, start)
    assert all(torch.equal(v, before[k]) for k, v in job.teacher.state_dict().items())


def test_a_round_is_reproduced_by_its_step_number() -> None:
    first, second = distillation(), distillation()
    reports = [job.round(OneBatch()) for job in (first, second)]  # type: ignore[arg-type]
    assert reports[0] == reports[1]
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "euler"},
        {"causal": True},
        {"motion_alignment": 1.0},
        {"noise_range": "exit"},
    ],
)
def test_every_switch_trains_another_student(changes: dict[str, object]) -> None:
    class TwoChunks(OneBatch):
        def draw_sequences(self, *_: object, from_portrait: bool) -> SequenceBatch:
            torch.manual_seed(1)
            return sequences(2)

    recipe = replace(smoke_student(), max_chunks=2, num_steps=2, random_chunks=False, bf16=False)
    weights = []
    for chosen in (recipe, replace(recipe, **changes)):  # type: ignore[arg-type]
        job = Distillation(chosen, teacher(), Workers())
        job.round(TwoChunks())  # type: ignore[arg-type]
        weights.append(job.model.head.projection.weight)
    assert torch.isfinite(weights[1]).all()
    assert not torch.equal(*weights)


def test_a_resumed_distillation_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = distillation()
    whole.round(OneBatch())  # type: ignore[arg-type]
    whole.save(tmp_path)
    whole.round(OneBatch())  # type: ignore[arg-type]
    resumed = distillation()
    assert resumed.resume(tmp_path)
    resumed.round(OneBatch())  # type: ignore[arg-type]
    for a, b in ((whole.model, resumed.model), (whole.critic, resumed.critic)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert resumed.step == 2
    torch.testing.assert_close(averaged_model(tmp_path).state_dict(), _after_one(tmp_path))


def _after_one(folder: Path) -> dict[str, Tensor]:
    job = distillation()
    job.resume(folder)
    return job.averaged().state_dict()


def test_causal_attention_hears_no_later_frame() -> None:
    model = copy_model(teacher(), causal=True)
    latents, times = torch.randn(1, 24, 3, 16, 16), torch.full((1,), 0.5)
    other = latents.clone()
    other[:, :, 2] += 1
    conditions = ChunkConditions(torch.ones(1, 9, 5, 4, 64), torch.zeros(1, 16, 16, 16))
    for network, blind in ((model, True), (teacher(), False)):
        with torch.no_grad():
            a, b = (conditions.velocity(network, x, times) for x in (latents, other))
        assert torch.equal(a[:, :, :2], b[:, :, :2]) == blind
        assert not torch.equal(a[:, :, 2], b[:, :, 2])
