"""Stage 2: the few-step student, by self-correcting distillation (method section 1.9).

    python -m visavis.training.distill --teacher runs/teacher --out runs/distilled

Student, frozen teacher and critic start from the teacher's averaged weights. A round rolls the
student out over k chunks on its own history, with the deployed sampler and hand-over (but for what
the embedded codec's `join` does to a chunk before it is handed over), leaves the last chunk at a
random step, trains the critic on that sample several times (fresh noise each, which saves
roll-outs) and then the student once, which makes the last chunk anew on the same history.

Audio and motion are paired in this data, so a regression of the lips to the recorded motion can be
mixed in: distribution matching on its own history alone is known to let motion go slack.

`training.ablation` compares the recipe's switches on a small model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.checkpoints import step_seed
from visavis.training.config_files import Overrides, recipe_or_exit
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
from visavis.training.parallel import RunParts, Workers, backward_share
from visavis.training.pixel_hand_over import PixelHandOver
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import StudentRecipe
from visavis.training.resumable_run import AllowChanges, ResumableRun, resume_or_exit
from visavis.training.rollout import ChunkHearing, leave_at, with_motion
from visavis.training.run_loop import run_steps, validate
from visavis.training.run_models import copy_model, teacher_or_exit
from visavis.training.self_rollout import (
    LastChunk,
    MotionScene,
    RoundPlan,
    Scene,
    plan_round,
    roll_to_last,
    sequence_frames,
)
from visavis.training.training_data import TrainingData, open_data

app = App(help=__doc__)


@runtime_checkable
class Scenes(Protocol):
    """Where roll-outs come from that bring their own latents and hand-over."""

    def draw_scene(
        self, rng: np.random.Generator, batch: int, chunks: int, *, from_portrait: bool
    ) -> Scene: ...


class Sequences(Protocol):
    """Where roll-outs get speech, portraits and recorded motion from."""

    @property
    def hearing(self) -> ChunkHearing: ...

    def draw_sequences(
        self, rng: np.random.Generator, batch: int, frames: int, *, from_portrait: bool
    ) -> SequenceBatch: ...


@dataclass(frozen=True, slots=True)
class Stream:
    """One micro-batch of a round: its last chunk, the student's sample of it, its own noise."""

    last: LastChunk
    sample: Tensor
    generator: torch.Generator


class Distillation(ResumableRun[FlashTalkDiT]):
    """The three networks of stage 2 and what a run carries; `model` is the student.

    They are of any size: `workers` says whether a process holds them whole or in pieces.
    """

    recipe: StudentRecipe

    def __init__(
        self,
        recipe: StudentRecipe,
        teacher: FlashTalkDiT,
        workers: Workers,
        *,
        student: FlashTalkDiT | None = None,
        critic: FlashTalkDiT | None = None,
        pixels: PixelHandOver | None = None,
    ) -> None:
        """`student` and `critic` start as copies of the teacher; give them where they lie in
        pieces already. `pixels`: what a recipe with `reencode` hands over through."""
        if recipe.reencode != (pixels is not None):
            raise ValueError(f"reencode={recipe.reencode} must say whether there is `pixels`")
        self.pixels = pixels
        student = student or workers.place(copy_model(teacher, causal=recipe.causal))
        super().__init__(recipe, student, _optimizer(recipe, student, recipe.rate), workers)
        self.critic = critic or workers.place(copy_model(teacher))
        self.critic_optimizer = _optimizer(recipe, self.critic, recipe.critic_rate)
        self.teacher = workers.place(teacher.eval().requires_grad_(False), trained=False)

    def round(self, windows: Sequences | Scenes) -> dict[str, float]:
        """Roll out, train the critic, train the student."""
        recipe, workers = self.recipe, self.workers
        plan = plan_round(recipe, self.step)
        workers.agree(plan)
        with workers.autocast(recipe.bf16):
            streams = [
                self.begin(windows, plan, stream) for stream in workers.streams(recipe.streams)
            ]
            losses = [self.train_critic(streams, plan) for _ in range(recipe.critic_updates)]
            report = self.train_student(streams, plan)
        report["critic"] = sum(losses) / max(len(losses), 1)
        return {**workers.average(report), "chunks": float(plan.chunks)}

    def begin(self, windows: Sequences | Scenes, plan: RoundPlan, stream: int) -> Stream:
        """Draw a micro-batch, go to its last chunk and let the student make that."""
        recipe = self.recipe
        rng = np.random.default_rng(step_seed(recipe.seed, self.step, stream, 2))
        generator = self.workers.generator(step_seed(recipe.seed, self.step, stream, 3))
        last = roll_to_last(
            self.model,
            self.draw_scene(windows, rng, plan),
            plan.chunks,
            generator,
            num_steps=recipe.num_steps,
            sampler=recipe.sampler,
        )
        with torch.no_grad():
            sample = with_motion(self.make(last, plan, generator), last.motion)
        return Stream(last, sample, generator)

    def draw_scene(
        self, windows: Sequences | Scenes, rng: np.random.Generator, plan: RoundPlan
    ) -> Scene:
        """Sequences for a roll-out of so many chunks."""
        recipe = self.recipe
        if isinstance(windows, Scenes):
            return windows.draw_scene(
                rng, recipe.batch, plan.chunks, from_portrait=plan.from_portrait
            )
        frames = sequence_frames(plan.chunks, recipe.chunk_frames)
        batch = windows.draw_sequences(rng, recipe.batch, frames, from_portrait=plan.from_portrait)
        return MotionScene(
            windows.hearing,
            batch,
            recipe.chunk_frames,
            plan.from_portrait,
            self.pixels,
        )

    def make(self, last: LastChunk, plan: RoundPlan, generator: torch.Generator) -> Tensor:
        """The last chunk as the student predicts it at the exit step, motion slots included."""
        recipe = self.recipe
        return leave_at(
            lambda x, t: last.conditions.velocity(self.model, x, t),
            last.shape,
            last.motion,
            generator,
            num_steps=recipe.num_steps,
            exit_step=plan.exit_step,
            sampler=recipe.sampler,
        )

    def train_critic(self, streams: Sequence[Stream], plan: RoundPlan) -> float:
        """One critic step on the student's samples; the mean loss of these streams."""
        total = 0.0
        for stream in streams:
            last, sample, generator = stream.last, stream.sample, stream.generator
            levels = self._levels(len(sample), plan, generator)
            loss = critic_loss(
                sample, levels, last.supervised, last.conditions, self.critic, generator
            )
            backward_share(loss, len(streams))
            total += float(loss.detach())
        self.descend(self.critic, self.critic_optimizer)
        return total / len(streams)

    def train_student(self, streams: Sequence[Stream], plan: RoundPlan) -> dict[str, float]:
        """One student step: distribution matching, and what else the recipe weighs in."""
        sums: dict[str, float] = {}
        for stream in streams:
            loss, report = self._student_loss(stream, plan)
            backward_share(loss, len(streams))
            for name, value in report.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        means = {name: value / len(streams) for name, value in sums.items()}
        return {**means, "grad_norm": self.update()}

    def _student_loss(self, stream: Stream, plan: RoundPlan) -> tuple[Tensor, dict[str, Tensor]]:
        recipe, last, generator = self.recipe, stream.last, stream.generator
        clean = self.make(last, plan, generator)
        sample = with_motion(clean, last.motion)
        gradient = matching_gradient(
            sample.detach(),
            self._levels(len(sample), plan, generator),
            last.supervised,
            last.conditions,
            self.teacher,
            self.critic,
            generator,
            audio_guidance=recipe.audio_guidance,
            text_guidance=recipe.text_guidance,
        )
        loss = matching_loss(sample, gradient, last.supervised)
        report = {"gradient": gradient.abs().mean()}
        if last.truth is not None and last.lips is not None:
            report["lips"] = lip_regression(sample, last.truth, last.supervised, last.lips)
            if recipe.regression_weight:
                loss = loss + recipe.regression_weight * report["lips"]
        if recipe.motion_alignment:
            loss = loss + recipe.motion_alignment * alignment_loss(clean, last.motion)
        return loss, report

    def _levels(self, size: int, plan: RoundPlan, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        whole = recipe.noise_range == "full"
        return draw_levels(
            size,
            generator,
            shift=recipe.shift,
            smallest=recipe.smallest_time,
            largest=recipe.largest_time,
            raw_range=(0.0, 1.0) if whole else step_range(plan.exit_step, recipe.num_steps),
        )

    def averaged(self) -> FlashTalkDiT:
        """A copy of the student with the averaged weights."""
        return self.average_into(copy_model(self.model, causal=self.recipe.causal))

    def parts(self) -> RunParts:
        """What a checkpoint holds: student and critic with their optimisers."""
        own = super().parts()
        return replace(
            own,
            models={**own.models, "critic": self.critic},
            optimizers={**own.optimizers, "critic_optimizer": ("critic", self.critic_optimizer)},
        )


def _optimizer(recipe: StudentRecipe, model: FlashTalkDiT, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        model.parameters(), lr=rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )


def distil(job: Distillation, data: TrainingData, folder: Path) -> None:
    """Rounds until the recipe's time or step count is reached."""
    recipe = job.recipe

    def watch(progress: RunProgress) -> None:
        validate(job, data, progress, folder, num_steps=recipe.num_steps)

    run_steps(
        job,
        lambda: job.round(data.train),
        folder,
        samples=recipe.batch * (recipe.streams or job.workers.count),
        watch=watch,
        watch_minutes=recipe.validate_minutes,
    )


@app.default
def main(
    *,
    teacher: Path = Path("runs/teacher"),
    out: Path = Path("runs/distilled"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    codec: Path = Path("runs/codec/weights"),
    config: str = "distill-embedded",
    overrides: Overrides = (),
    minutes: float | None = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Distil the student.

    Args:
        teacher: folder of the teacher's run.
        out: folder of this run; goes on from its checkpoint, if there is one.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
        codec: folder of the codec's weights, for a recipe with `reencode`.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        minutes: wall-clock length of the whole run, resumed parts included.
        allow_changes: go on from a checkpoint that another recipe made.
    """
    chosen = recipe_or_exit(StudentRecipe, config, overrides)
    if minutes is not None:
        chosen = replace(chosen, minutes=minutes)
    with Workers() as workers:
        configure_logging(out / "log.txt" if workers.leads else None)
        data = open_data(
            speech,
            bank,
            encoder,
            focus_weight=chosen.focus_weight,
            sequences=chosen.validation_sequences,
            chunks=chosen.validation_chunks,
        )
        job = Distillation(
            chosen,
            teacher_or_exit(teacher, chosen.model),
            workers,
            pixels=PixelHandOver.load(codec, bank.parent) if chosen.reencode else None,
        )
        if resume_or_exit(job, out, allow_changes=allow_changes):
            log.info("resumed at step %d", job.step)
        distil(job, data, out)


if __name__ == "__main__":
    app()
