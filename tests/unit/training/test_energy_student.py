"""The student's run by the energy score, on a tiny model."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.checkpoints import load_checkpoint
from visavis.training.control_probe import ControlProbe
from visavis.training.dit_data import WindowBatch
from visavis.training.energy import EnergyWeights
from visavis.training.parallel import Workers
from visavis.training.puppets.basis import WEIGHTS
from visavis.training.recipes import MODELS
from visavis.training.resumable_run import ChangedRecipeError
from visavis.training.train_student import EnergyRecipe, StudentRun

RECIPE = replace(EnergyRecipe(), model="smoke", batch=2, bf16=False, seed=5, own_history_share=0.0)


class RandomWindows:
    """Draws windows of noise from the generator that it is given."""

    probe = ControlProbe.from_basis(torch.randn(1, len(WEIGHTS), 6, 16, 16))

    @property
    def train(self) -> "RandomWindows":
        return self

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        first_chunk_share: float,
        more_blinks: bool,
    ) -> WindowBatch:
        def normal(*shape: int) -> torch.Tensor:
            return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

        slots = 1 if first_chunk_share == 1 else 2
        return WindowBatch(
            latents=normal(batch, 24, 1 + (frames - 1) // 4, 16, 16),
            audio=normal(batch, frames, 5, 4, 64),
            layout=normal(batch, 16, 16, 16).abs().clamp(max=1),
            focus=torch.ones(batch, 16, 16),
            motion_slots=torch.full((batch,), slots),
            portraits=torch.zeros(batch, dtype=torch.int64),
        )


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """A model this small only waits for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def student() -> StudentRun:
    torch.manual_seed(0)
    return StudentRun(RECIPE, FlashTalkDiT(MODELS["smoke"]), Workers())


def advance(job: StudentRun) -> dict[str, float]:
    return job.advance(RandomWindows())  # type: ignore[arg-type]


def test_a_step_trains_the_model_and_says_what_it_did() -> None:
    job = student()
    before = job.model.head.projection.weight.detach().clone()
    report = advance(job)
    assert job.step == 1
    assert not torch.equal(job.model.head.projection.weight, before)
    (score,) = (value for name, value in report.items() if name.startswith("score_"))
    assert np.isfinite(score)
    assert report["grad_norm"] > 0


def test_a_resumed_run_repeats_the_next_step_exactly(tmp_path: Path) -> None:
    job = student()
    advance(job)
    job.save(tmp_path)
    again = student()
    assert again.resume(tmp_path)
    assert again.step == 1
    assert advance(again) == advance(job)
    for a, b in zip(again.averaged().parameters(), job.averaged().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_remembers_the_score_it_was_trained_by(tmp_path: Path) -> None:
    student().save(tmp_path)
    told = load_checkpoint(tmp_path / "checkpoint.pt")["recipe"]
    assert told["weights"] == asdict(EnergyWeights())
    teacher = FlashTalkDiT(MODELS["smoke"])
    other = StudentRun(RECIPE, teacher, Workers(), replace(EnergyWeights(), lids=1.0))
    with pytest.raises(ChangedRecipeError, match=r"weights.lids=1.0 \(was 8.0\)"):
        other.resume(tmp_path)


def test_a_teacher_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="model=small: the teacher is of another size"):
        StudentRun(replace(RECIPE, model="small"), FlashTalkDiT(MODELS["smoke"]), Workers())


def test_without_minutes_the_rate_hangs_on_the_step_alone() -> None:
    torch.manual_seed(0)
    recipe = replace(RECIPE, steps=200, minutes=float("inf"), decay_share=0.5)
    job = StudentRun(recipe, FlashTalkDiT(MODELS["smoke"]), Workers())
    for step, elapsed in ((100, 0.0), (100, 1e6), (150, 5.0)):
        job.step, job.elapsed = step, elapsed
        advance(job)
        left = 1.0 if step == 100 else 0.5
        expected = recipe.final_rate + (recipe.rate - recipe.final_rate) * left
        assert job.optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    job.step = 199
    assert not job.finished
    advance(job)
    assert job.finished


def test_without_a_checkpoint_a_run_starts_afresh(tmp_path: Path) -> None:
    assert not student().resume(tmp_path)


@pytest.mark.parametrize(
    ("elapsed", "rate"),
    [(0.0, RECIPE.rate), (1 - RECIPE.decay_share, RECIPE.rate), (1.0, RECIPE.final_rate)],
)
def test_the_learning_rate_falls_over_the_last_part(elapsed: float, rate: float) -> None:
    job = student()
    job.step = RECIPE.warm_up_steps
    job.elapsed = elapsed * 60 * RECIPE.minutes
    advance(job)
    assert job.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
