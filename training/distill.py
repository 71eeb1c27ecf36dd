"""Stage 2: the few-step student, by self-correcting distillation (method section 1.9).

    python -m visavis.training.distill --teacher runs/teacher --out runs/student

Student, frozen teacher and critic start from the teacher's averaged weights. A round rolls the
student out over k chunks on its own history, with the deployed sampler and hand-over, leaves the
last chunk at a random step, trains the critic on that sample several times (fresh noise each, which
saves roll-outs) and then the student once, on a chunk of its own.

Audio and motion are paired in this data, so a regression of the lips to the recorded motion is
mixed in: distribution matching on its own history alone is known to let motion go slack.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.codec.motion_latents import LATENT_CHANNELS, pack_codes
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.plan import MOTION_FRAMES, latent_frames
from visavis.training.checkpoints import load_checkpoint, save_checkpoint, step_seed
from visavis.training.distribution_matching import (
    critic_loss,
    draw_levels,
    lip_regression,
    matching_gradient,
    matching_loss,
)
from visavis.training.dit_data import MotionWindows, SequenceBatch
from visavis.training.ema import Ema
from visavis.training.flow_matching import supervised_slots
from visavis.training.hearing import Hearing
from visavis.training.parallel import Workers
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import MODELS, STUDENTS, TEACHERS, StudentRecipe
from visavis.training.resumable_run import CHECKPOINT
from visavis.training.rollout import ChunkConditions, Network, chunk_audio, exit_early, hand_over
from visavis.training.train_teacher import TrainingData
from visavis.training.validation import CHUNK_FRAMES

app = App(help=__doc__)
_NEW = CHUNK_FRAMES - MOTION_FRAMES


@dataclass(frozen=True, slots=True)
class LastChunk:
    """What the supervised chunk is made from: conditions, handed-over latents, recorded motion."""

    conditions: ChunkConditions
    motion: Tensor
    truth: Tensor
    lips: Tensor

    @property
    def supervised(self) -> Tensor:
        """1 in the slots that the student makes."""
        slots = torch.full((len(self.truth),), self.motion.shape[2])
        return supervised_slots(slots, self.truth.shape[2])


def sequence_frames(chunks: int) -> int:
    """Frames of a roll-out of `chunks` chunks."""
    return MOTION_FRAMES + chunks * _NEW


def reach_last_chunk(
    student: Network,
    hearing: Hearing,
    batch: SequenceBatch,
    chunks: int,
    generator: torch.Generator,
    *,
    num_steps: int,
    from_portrait: bool,
) -> LastChunk:
    """Generate all chunks but the last, without gradient, and set the last one up."""
    start = 1 if from_portrait else MOTION_FRAMES
    motion = pack_codes(batch.codes[:, :start])
    with torch.no_grad():
        for chunk in range(chunks - 1):
            conditions = _conditions(hearing, batch, chunk)
            latents = exit_early(
                lambda x, t, c=conditions: c.velocity(student, x, t),  # type: ignore[misc]
                _shape(len(batch.layout)),
                motion,
                generator,
                num_steps=num_steps,
                exit_step=num_steps - 1,
            )
            motion = hand_over(latents)
    first = (chunks - 1) * _NEW
    # Where history is generated, it replaces the recorded frames: slot 0 codes one frame there.
    truth = pack_codes(batch.codes[:, first : first + CHUNK_FRAMES])
    return LastChunk(_conditions(hearing, batch, chunks - 1), motion.detach(), truth, batch.lips)


def _conditions(hearing: Hearing, batch: SequenceBatch, chunk: int) -> ChunkConditions:
    audio = chunk_audio(hearing, batch.mel, chunk * _NEW, CHUNK_FRAMES)
    return ChunkConditions(audio, batch.layout)


def _shape(batch: int) -> tuple[int, int, int, int, int]:
    return (batch, LATENT_CHANNELS, latent_frames(CHUNK_FRAMES), 16, 16)


class Distillation:
    """The three networks of stage 2 and what a run carries."""

    def __init__(self, recipe: StudentRecipe, teacher: FlashTalkDiT, workers: Workers) -> None:
        self.recipe, self.workers = recipe, workers
        self.teacher = teacher.eval().requires_grad_(False)
        self.student, self.critic = _copy(teacher), _copy(teacher)
        self.ema = Ema(self.student, recipe.ema_decay)
        self.student_optimizer = self._optimizer(self.student, recipe.rate)
        self.critic_optimizer = self._optimizer(self.critic, recipe.critic_rate)
        self.step = 0
        self.elapsed = 0.0

    def _optimizer(self, model: FlashTalkDiT, rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            model.parameters(),
            lr=rate,
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
        )

    def round(self, windows: MotionWindows) -> dict[str, float]:
        """Roll out, train the critic, train the student."""
        recipe, rank = self.recipe, self.workers.rank
        # The same on all ranks: number of chunks, exit step, start.
        shared = np.random.default_rng(step_seed(recipe.seed, self.step, 0, 1))
        chunks = int(shared.integers(1, recipe.max_chunks + 1))
        exit_step = int(shared.integers(recipe.num_steps))
        from_portrait = bool(shared.random() >= recipe.recorded_start)
        rng = np.random.default_rng(step_seed(recipe.seed, self.step, rank, 2))
        generator = torch.Generator().manual_seed(step_seed(recipe.seed, self.step, rank, 3))
        batch = windows.draw_sequences(
            rng, recipe.batch, sequence_frames(chunks), from_portrait=from_portrait
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            last = reach_last_chunk(
                self.student,
                windows.hearing,
                batch,
                chunks,
                generator,
                num_steps=recipe.num_steps,
                from_portrait=from_portrait,
            )
            with torch.no_grad():
                sample = self.make(last, exit_step, generator)
            losses = [
                self.train_critic(sample, last, generator) for _ in range(recipe.critic_updates)
            ]
            report = self.train_student(last, exit_step, generator)
        self.step += 1
        return {**report, "critic": sum(losses) / max(len(losses), 1), "chunks": float(chunks)}

    def make(self, last: LastChunk, exit_step: int, generator: torch.Generator) -> Tensor:
        """The last chunk as the student makes it, left at `exit_step`; float32."""
        return exit_early(
            lambda x, t: last.conditions.velocity(self.student, x, t),
            _shape(len(last.truth)),
            last.motion,
            generator,
            num_steps=self.recipe.num_steps,
            exit_step=exit_step,
        )

    def train_critic(self, sample: Tensor, last: LastChunk, generator: torch.Generator) -> float:
        """One critic step on the student's sample."""
        levels = self._levels(len(sample), generator)
        loss = critic_loss(sample, levels, last.supervised, last.conditions, self.critic, generator)
        self._update(loss, self.critic, self.critic_optimizer)
        return float(loss.detach())

    def train_student(
        self, last: LastChunk, exit_step: int, generator: torch.Generator
    ) -> dict[str, float]:
        """One student step: distribution matching, and the lips' regression."""
        recipe = self.recipe
        sample = self.make(last, exit_step, generator)
        gradient = matching_gradient(
            sample.detach(),
            self._levels(len(sample), generator),
            last.supervised,
            last.conditions,
            self.teacher,
            self.critic,
            generator,
            audio_guidance=recipe.audio_guidance,
        )
        matching = matching_loss(sample, gradient, last.supervised)
        lips = lip_regression(sample, last.truth, last.supervised, last.lips)
        self._update(
            matching + recipe.regression_weight * lips, self.student, self.student_optimizer
        )
        self.ema.update(self.student)
        return {"gradient": float(gradient.abs().mean()), "lips": float(lips.detach())}

    def _levels(self, size: int, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        return draw_levels(
            size,
            generator,
            shift=recipe.shift,
            smallest=recipe.smallest_time,
            largest=recipe.largest_time,
        )

    def _update(self, loss: Tensor, model: FlashTalkDiT, optimizer: torch.optim.Optimizer) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.elapsed = self.workers.average_gradients(model, self.elapsed)
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def averaged(self) -> FlashTalkDiT:
        """A copy of the student with the averaged weights."""
        copy = _copy(self.student)
        self.ema.copy_to(copy)
        return copy.eval().requires_grad_(False)

    def state(self) -> dict[str, object]:
        """Everything for a checkpoint."""
        return {
            "student": self.student.state_dict(),
            "critic": self.critic.state_dict(),
            "ema": self.ema.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "recipe": asdict(self.recipe),
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = load_checkpoint(path)
        self.student.load_state_dict(state["student"])
        self.critic.load_state_dict(state["critic"])
        self.ema.load_state_dict(state["ema"])
        self.student_optimizer.load_state_dict(state["student_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.step, self.elapsed = int(state["step"]), float(state["elapsed"])


def _copy(model: FlashTalkDiT) -> FlashTalkDiT:
    copy = FlashTalkDiT(model.config, attention_impl="plain")
    copy.load_state_dict(model.state_dict())
    return copy


def averaged_model(run: Path) -> FlashTalkDiT:
    """The averaged weights of a teacher's or a student's run.

    Raises FileNotFoundError if the run has no checkpoint yet.
    """
    state = load_checkpoint(run / CHECKPOINT)
    model = FlashTalkDiT(MODELS[state["recipe"]["model"]], attention_impl="plain")
    ema = Ema(model)
    ema.load_state_dict(state["ema"])
    ema.copy_to(model)
    return model


def distil(job: Distillation, data: TrainingData, folder: Path) -> None:
    """Rounds until the recipe's time or step count is reached."""
    recipe = job.recipe
    saved = validated = job.elapsed
    with RunProgress(
        folder,
        60 * recipe.minutes,
        start=job.elapsed,
        by_time=True,
        every=recipe.log_every,
        silent=not job.workers.leads,
    ) as progress:
        if job.workers.leads and job.step == 0:
            _validate(job, data, progress, folder)
        finished = False
        while not finished:
            losses = job.round(data.train)
            # Agreed on by all ranks: it travelled with the last gradient.
            finished = job.elapsed >= 60 * recipe.minutes or job.step >= recipe.steps
            if job.workers.leads:
                progress.step(job.step, recipe.batch * job.workers.count, losses)
                if finished or job.elapsed - validated > 60 * recipe.validate_minutes:
                    validated = job.elapsed
                    _validate(job, data, progress, folder)
                if finished or job.elapsed - saved > 60 * recipe.save_minutes:
                    saved = job.elapsed
                    save_checkpoint(folder / CHECKPOINT, job.state())
            job.elapsed = progress.elapsed


def _validate(job: Distillation, data: TrainingData, progress: RunProgress, folder: Path) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=job.recipe.bf16):
        sampled = data.validation.sample(job.averaged(), num_steps=job.recipe.num_steps)
    metrics = data.validation.metrics(sampled)
    progress.report(job.step, "validation", metrics)
    title = f"step {job.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in metrics.items())
    data.validation.sheet(sampled, folder / f"sheet-{job.step:06d}.png", title)


@app.default
def main(
    *,
    teacher: Path = Path("runs/teacher"),
    out: Path = Path("runs/student"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    recipe: str = "embedded",
    minutes: float | None = None,
) -> None:
    """Distil the student.

    Args:
        teacher: folder of the teacher's run.
        out: folder of this run; goes on from its checkpoint, if there is one.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
        recipe: preset, see `training/recipes.py`.
        minutes: wall-clock length of the whole run, resumed parts included.
    """
    chosen = STUDENTS[recipe]()
    if minutes is not None:
        chosen = replace(chosen, minutes=minutes)
    with Workers() as workers:
        configure_logging(out / "log.txt" if workers.leads else None)
        data = TrainingData(
            speech,
            bank,
            Hearing.load(encoder),
            focus_weight=TEACHERS[recipe]().focus_weight,
            sequences=chosen.validation_sequences,
            chunks=chosen.validation_chunks,
        )
        job = Distillation(chosen, averaged_model(teacher), workers)
        if (out / CHECKPOINT).exists():
            job.restore(out / CHECKPOINT)
            log.info("resumed at step %d", job.step)
        distil(job, data, out)


if __name__ == "__main__":
    app()
