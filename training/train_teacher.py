"""Stage 1: the flow-matching teacher.

    python -m visavis.training.train_teacher --out runs/teacher
    torchrun --nproc-per-node 2 -m visavis.training.train_teacher --out runs/teacher

Resumes by itself when the run's folder holds a checkpoint. Writes `checkpoint.pt`, `log.txt`,
TensorBoard curves and contact sheets there.
"""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.checkpoints import step_seed
from visavis.training.config_files import Overrides, recipe_or_exit
from visavis.training.flow_matching import (
    FlowLosses,
    add_noise,
    draw_times,
    flow_matching_loss,
    impose_motion,
    supervised_slots,
)
from visavis.training.parallel import Workers, backward_share
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import MODELS, TeacherRecipe
from visavis.training.resumable_run import (
    AllowChanges,
    ResumableRun,
    cosine_fall,
    resume_or_exit,
    share_done,
    warmth,
)
from visavis.training.rollout import Conditions, Network
from visavis.training.run_loop import run_steps, validate
from visavis.training.training_data import TrainingData, open_data

app = App(help=__doc__)


class Window(Protocol):
    """A batch of windows, whatever their latents are; shapes as in `WindowBatch`."""

    @property
    def latents(self) -> Tensor: ...

    @property
    def focus(self) -> Tensor: ...

    @property
    def motion_slots(self) -> Tensor: ...

    @property
    def stacked_frames(self) -> int:
        """Pixel frames in a latent frame's channels, one after the other."""
        ...

    def conditions(self, heard_B: Tensor, read_B: Tensor) -> Conditions:
        """With the audio of some samples silent and the text of some empty, where false."""
        ...


class Windows(Protocol):
    """Where batches come from."""

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        first_chunk_share: float = ...,
    ) -> Window: ...


class TrainsOn(Protocol):
    """Data with windows to train on."""

    @property
    def train(self) -> Windows: ...


def learning_rate(recipe: TeacherRecipe, step: int, elapsed: float) -> float:
    """Linear warm-up, constant, cosine over the last `decay_share` of the run."""
    done = share_done(recipe.steps, recipe.minutes, step, elapsed)
    rate = cosine_fall(done, recipe.rate, recipe.final_rate, recipe.decay_share)
    return rate * warmth(step, recipe.warm_up_steps)


def teacher_losses(
    network: Network, batch: Window, recipe: TeacherRecipe, generator: torch.Generator
) -> FlowLosses:
    """One forward pass at random noise levels, handed-over slots clean but for a little noise."""
    latents = batch.latents
    size = len(latents)
    times = draw_times(size, generator, shift=recipe.shift, uniform_share=recipe.uniform_share)
    device = generator.device
    noise = torch.randn(latents.shape, generator=generator, device=device)
    supervised = supervised_slots(batch.motion_slots, latents.shape[2])
    spread = torch.rand(size, 1, 1, 1, 1, generator=generator, device=device)
    wander = torch.randn(latents.shape, generator=generator, device=device)
    history = latents + recipe.history_noise * spread * wander
    noisy = impose_motion(add_noise(latents, noise, times), history, supervised)
    conditions = batch.conditions(*_kept(size, recipe, generator))
    velocity = conditions.velocity(network, noisy, times)
    return flow_matching_loss(
        velocity.float(),
        noise - latents,
        times,
        supervised,
        batch.focus,
        temporal_weight=recipe.temporal_weight,
        stacked_frames=batch.stacked_frames,
    )


def _kept(size: int, recipe: TeacherRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which samples [B] keep their audio, and which their text: nothing is heard without text, as
    in guidance (method section 1.8)."""
    chance = torch.rand(size, generator=generator, device=generator.device)
    return chance >= recipe.drop_audio, chance >= recipe.drop_audio + recipe.drop_text


class TeacherRun(ResumableRun[FlashTalkDiT]):
    """The teacher's run, in a folder of its own."""

    recipe: TeacherRecipe

    def __init__(
        self,
        recipe: TeacherRecipe,
        folder: Path,
        workers: Workers,
        *,
        model: FlashTalkDiT | None = None,
    ) -> None:
        """`model`: where training starts, placed already; None: random weights of the recipe's
        size."""
        self.folder = folder
        if model is None:
            torch.manual_seed(recipe.seed)
            model = workers.place(FlashTalkDiT(MODELS[recipe.model], attention_impl="plain"))
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        super().__init__(recipe, model, optimizer, workers)
        self.network: Network = torch.compile(model, dynamic=False) if recipe.compile else model

    def advance(self, data: TrainsOn) -> dict[str, float]:
        """One optimiser step."""
        recipe, workers = self.recipe, self.workers
        # The window length is drawn alike on all ranks, so that none waits for a longer one.
        shared = np.random.default_rng(step_seed(recipe.seed, self.step, 0, stream=1))
        frames = int(shared.choice(recipe.frame_counts, p=recipe.frame_shares))
        rate = learning_rate(recipe, self.step, self.elapsed)
        self.set_rate(rate)
        streams = workers.streams(recipe.streams)
        sums = {"loss": 0.0, "temporal": 0.0}
        for stream in streams:
            rng = np.random.default_rng(step_seed(recipe.seed, self.step, stream, stream=2))
            generator = workers.generator(step_seed(recipe.seed, self.step, stream, 3))
            batch = data.train.draw(
                rng, recipe.batch, frames, first_chunk_share=recipe.first_chunk_share
            )
            with workers.autocast(recipe.bf16):
                losses = teacher_losses(self.network, batch, recipe, generator)
            backward_share(losses.total, len(streams))
            sums["loss"] += float(losses.velocity.detach()) / len(streams)
            sums["temporal"] += float(losses.temporal.detach()) / len(streams)
        norm = self.update()
        return {**workers.average(sums), "grad_norm": norm, "rate": rate}

    def averaged(self) -> FlashTalkDiT:
        """A copy of the model with the averaged weights, for sampling."""
        return self.average_into(FlashTalkDiT(self.model.config))


def train(run: TeacherRun, data: TrainingData) -> None:
    """Steps until the recipe's time or step count is reached."""
    recipe = run.recipe
    drawn = run.elapsed

    def watch(progress: RunProgress) -> None:
        nonlocal drawn
        draws = run.finished or run.elapsed - drawn > 60 * recipe.sheet_minutes
        drawn = run.elapsed if draws else drawn
        validate(run, data, progress, run.folder, sheet=draws)

    run_steps(
        run,
        lambda: run.advance(data),
        run.folder,
        samples=recipe.batch * (recipe.streams or run.workers.count),
        watch=watch,
        watch_minutes=recipe.validate_minutes,
    )


@app.default
def main(
    *,
    out: Path = Path("runs/teacher"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    config: str = "teacher-embedded",
    overrides: Overrides = (),
    minutes: float | None = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the teacher.

    Args:
        out: folder of the run.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        minutes: wall-clock length of the whole run, resumed parts included.
        allow_changes: go on from a checkpoint that another recipe made.
    """
    chosen = recipe_or_exit(TeacherRecipe, config, overrides)
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
        job = TeacherRun(chosen, out, workers)
        resumed = resume_or_exit(job, out, allow_changes=allow_changes)
        log.info(
            "%s at step %d: %.2f M parameters, %d clips, %d portraits, %d processes",
            "resumed" if resumed else "starting",
            job.step,
            sum(p.numel() for p in job.model.parameters()) / 1e6,
            len(data.train.clips.lengths),
            len(data.train.portraits),
            workers.count,
        )
        train(job, data)


if __name__ == "__main__":
    app()
