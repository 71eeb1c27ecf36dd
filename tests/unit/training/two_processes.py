"""Short runs of both stages that several processes can share; `main` is what torchrun starts.

A step has two micro-batches, so that one process computes both and two compute one each.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import tiny_clips
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.control_probe import ControlProbe
from visavis.training.distill import Distillation
from visavis.training.dit_data import SequenceBatch, WindowBatch
from visavis.training.hearing import Hearing
from visavis.training.parallel import DesyncError, Workers
from visavis.training.puppets.basis import WEIGHTS
from visavis.training.recipes import MODELS, smoke_student, smoke_teacher
from visavis.training.resumable_run import ResumableRun
from visavis.training.sharding import ShardedWorkers, ShardingPlan
from visavis.training.stored_clips import StoredClips
from visavis.training.train_student import EnergyRecipe, StudentRun
from visavis.training.train_teacher import TeacherRun

PLAN = ShardingPlan(bf16=False)
TEACHER = replace(
    smoke_teacher(),
    streams=2,
    bf16=False,
    minutes=float("inf"),
    steps=1000,
    warm_up_steps=2,
    frame_counts=(9, 13),
    frame_shares=(0.5, 0.5),
)
STUDENT = replace(
    smoke_student(),
    streams=2,
    bf16=False,
    minutes=float("inf"),
    chunk_frames=9,
    max_chunks=2,
    num_steps=2,
    recorded_start=0.5,
    rate=1e-3,
    critic_rate=1e-3,
)
# The second step is on history of the student's own making.
ENERGY = replace(
    EnergyRecipe(),
    model="smoke",
    batch=2,
    streams=2,
    bf16=False,
    minutes=float("inf"),
    steps=1000,
    warm_up_steps=2,
    num_steps=2,
    exit_shares=(0.5, 0.5),
    frame_counts=(9, 13),
    frame_shares=(0.5, 0.5),
    own_history_share=0.25,
    max_chunks=2,
    seed=79,
)
LARGE_TEACHER = replace(TEACHER, batch=1, frame_counts=(9,), frame_shares=(1.0,), drop_text=0.3)
LARGE_STUDENT = replace(STUDENT, batch=1, audio_guidance=4.0, text_guidance=3.0)
Result = dict[str, object]
Run = TypeVar("Run", TeacherRun, Distillation, StudentRun)
AnyRun = TeacherRun | Distillation | StudentRun


class RandomMotion:
    """Windows and sequences of noise: what is drawn is told by the generator alone."""

    hearing = Hearing()
    probe = ControlProbe.from_basis(
        torch.randn(1, len(WEIGHTS), 6, 16, 16, generator=torch.Generator().manual_seed(1))
    )

    @property
    def train(self) -> "RandomMotion":
        return self

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        first_chunk_share: float = 0.5,
        more_blinks: bool = False,
    ) -> WindowBatch:
        first = rng.random(batch) < first_chunk_share
        return WindowBatch(
            latents=normal(rng, batch, 24, 1 + (frames - 1) // 4, 16, 16),
            audio=normal(rng, batch, frames, 5, 4, 64),
            layout=normal(rng, batch, 16, 16, 16),
            focus=normal(rng, batch, 16, 16).square(),
            motion_slots=torch.from_numpy(np.where(first, 1, 2)),
            portraits=torch.zeros(batch, dtype=torch.int64),
        )

    def draw_sequences(
        self, rng: np.random.Generator, batch: int, frames: int, *, from_portrait: bool
    ) -> SequenceBatch:
        return SequenceBatch(
            codes=normal(rng, batch, frames, 6, 16, 16),
            mel=normal(rng, batch, self.hearing.lead + frames, 4, 64),
            layout=normal(rng, batch, 16, 16, 16),
            lips=normal(rng, batch, 16, 16).square(),
            portraits=torch.zeros(batch, dtype=torch.int64),
        )


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def random_model() -> FlashTalkDiT:
    """Every parameter random: starting weights are zero where a network is to begin as nothing."""
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"], attention_impl="plain")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def smooth(run: Run) -> Run:
    """Adam's first steps are the gradient's signs, which rounding decides where it is all but zero;
    with this epsilon they are proportional to it there.
    """
    optimizers = [run.optimizer]
    if isinstance(run, Distillation):
        optimizers.append(run.critic_optimizer)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["eps"] = 1e-4
    return run


def teacher_run(workers: Workers, folder: Path = Path("unused")) -> TeacherRun:
    return smooth(TeacherRun(TEACHER, folder, workers, model=workers.place(random_model())))


def student_run(workers: Workers) -> Distillation:
    return smooth(Distillation(STUDENT, random_model(), workers))


def energy_run(workers: Workers) -> StudentRun:
    return smooth(StudentRun(ENERGY, random_model(), workers))


def large_teacher(workers: Workers) -> TeacherRun:
    model = workers.place(tiny_clips.tiny_model())
    return smooth(TeacherRun(LARGE_TEACHER, Path("unused"), workers, model=model))


def large_student(workers: Workers) -> Distillation:
    return smooth(Distillation(LARGE_STUDENT, tiny_clips.tiny_model(), workers))


def steps(
    run: AnyRun, count: int, data: RandomMotion | StoredClips | None = None
) -> list[dict[str, float]]:
    """So many steps; what each of them reports."""
    data = data or RandomMotion()
    if isinstance(run, StudentRun):
        return [run.advance(data) for _ in range(count)]  # type: ignore[arg-type]
    if isinstance(run, TeacherRun):
        return [run.advance(data) for _ in range(count)]
    return [run.round(data) for _ in range(count)]


def outcome(run: ResumableRun[FlashTalkDiT], reports: list[dict[str, float]]) -> Result:
    """Reports, parameters and averages, whole."""
    return {
        "reports": reports,
        "parameters": {name: whole(p) for name, p in run.model.named_parameters()},
        "averages": {
            name: whole(average)
            for name, average in run.ema.state_dict().items()
            if isinstance(average, Tensor)
        },
    }


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def workers_of(kind: str) -> Workers:
    return ShardedWorkers(PLAN) if kind == "sharded" else Workers()


MAKERS: dict[str, Callable[[Workers], AnyRun]] = {
    "teacher": teacher_run,
    "student": student_run,
    "energy student": energy_run,
}


def all_stages(workers: Workers, folder: Path) -> dict[str, Result]:
    """A few steps of each trainer, a checkpoint after the first of them."""
    results = {}
    for name, make in MAKERS.items():
        run = make(workers)
        reports = steps(run, 1)
        run.save(folder / name)
        results[name] = outcome(run, reports + steps(run, 1))
    return results | large_stages(workers, folder / f"store-{workers.rank}")


def large_stages(workers: Workers, folder: Path) -> dict[str, Result]:
    """Two steps of each stage on stored clips, hand-overs through a VAE."""
    clips = tiny_clips.tiny_clips(folder)
    teacher, student = large_teacher(workers), large_student(workers)
    return {
        "large teacher": outcome(teacher, steps(teacher, 2, clips)),
        "large student": outcome(student, steps(student, 2, clips)),
    }


def main(kind: str, folder: Path) -> None:
    """One of the processes: `kind` is "replicated" or "sharded"."""
    torch.set_num_threads(1)
    with workers_of(kind) as workers:
        results: dict[str, object] = dict(all_stages(workers, folder))
        try:
            workers.agree(("exit step", workers.rank))
        except DesyncError as error:
            results["desync"] = str(error)
        if workers.leads:
            torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
