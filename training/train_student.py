"""Stage 2: the few-step student, trained on its own samples by an energy score.

    python -m visavis.training.train_student --teacher runs/teacher --out runs/student
    torchrun --nproc-per-node 2 -m visavis.training.train_student ...

The student starts from the teacher. A step runs the deployed sampler twice with different noise, up
to a random step, and scores both results against the recorded motion (`energy.py`); gradient flows
through the last network call alone. So each denoising step is trained on what the steps before it
make of noise, as when deployed, and samples are distributed as the data, blinks and sway included.
Motion latents come from recordings with a little noise, or from the student's own chunks
(`own_history.py`).
`distill.py` can follow, to correct it on its own history.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.checkpoints import step_seed
from visavis.training.config_files import Overrides, recipe_or_exit
from visavis.training.control_probe import ControlProbe
from visavis.training.dit_data import WindowBatch
from visavis.training.energy import EnergyWeights, energy_score
from visavis.training.own_history import own_history_batch
from visavis.training.parallel import Workers, backward_share
from visavis.training.pixel_hand_over import PixelHandOver
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import MODELS, check_length, check_model, check_shares, check_windows
from visavis.training.resumable_run import AllowChanges, ResumableRun, resume_or_exit, warmth
from visavis.training.rollout import ChunkConditions, exit_early
from visavis.training.run_loop import run_steps, validate
from visavis.training.run_models import exported_or_exit, teacher_or_exit
from visavis.training.training_data import TrainingData, open_data

app = App(help=__doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRecipe:
    """How the student is trained; times are wall-clock, a run ends at `minutes` or `steps`."""

    model: str = "embedded"  # the teacher's
    batch: int = 8
    streams: int = 0  # micro-batches of a step; 0: one for each process
    # Rates fall by whichever is nearer its end: with minutes = inf a run is the same anywhere.
    steps: int = 1_000_000
    minutes: float = 30.0
    num_steps: int = 4
    # Every step may draw anew what audio leaves open, and the last one's draw is what is shown.
    exit_shares: tuple[float, ...] = (0.3, 0.2, 0.2, 0.3)
    rate: float = 5e-4  # constant, then falling over the last part of the run
    decay_share: float = 0.6
    final_rate: float = 1e-5
    warm_up_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    frame_counts: tuple[int, ...] = (33, 17, 13, 9)
    frame_shares: tuple[float, ...] = (0.6, 0.15, 0.15, 0.1)
    first_chunk_share: float = 0.15
    history_noise: float = 0.05
    more_blinks: bool = True
    # Share of steps on the last of 2..max_chunks chunks of the student's own making.
    own_history_share: float = 0.4
    max_chunks: int = 3
    # Hand over through pixels, as the paper does: decoded, then encoded again. Off, because the
    # model is deployed without, and it costs about what the chunk does.
    reencode: bool = False
    # Chunks are joined to those before them before they are handed over, as when deployed.
    join: bool = True
    seed: int = 3
    bf16: bool = True
    log_every: int = 25
    save_minutes: float = 3.0
    validate_minutes: float = 4.0
    validation_sequences: int = 16
    validation_chunks: int = 3

    def __post_init__(self) -> None:
        check_model(self.model)
        check_length(self.steps, self.minutes)
        check_windows(self.frame_counts, self.frame_shares)
        check_shares("exit_shares", self.exit_shares)
        if len(self.exit_shares) != self.num_steps:
            raise ValueError(
                f"exit_shares={self.exit_shares} must have one share for each of "
                f"num_steps={self.num_steps}"
            )
        if self.max_chunks < 2:
            raise ValueError(
                f"max_chunks={self.max_chunks}: own history takes two chunks; for none set "
                "own_history_share=0"
            )


def student_loss(
    network: FlashTalkDiT,
    batch: WindowBatch,
    exit_step: int,
    recipe: EnergyRecipe,
    generator: torch.Generator,
    weights: EnergyWeights,
    probe: ControlProbe,
) -> Tensor:
    """Energy score of two samples left at `exit_step`; all of the batch has one motion length."""
    slots = int(batch.motion_slots[0])
    spread = recipe.history_noise * torch.rand(len(batch.latents), 1, 1, 1, 1, generator=generator)
    motion = batch.latents[:, :, :slots]
    motion = motion + spread * torch.randn(motion.shape, generator=generator)
    conditions = ChunkConditions(batch.audio, batch.layout)
    samples = [
        exit_early(
            lambda x, t: conditions.velocity(network, x, t),
            tuple(batch.latents.shape),
            motion,
            generator,
            num_steps=recipe.num_steps,
            exit_step=exit_step,
        )
        for _ in range(2)
    ]
    truth = torch.cat([motion, batch.latents[:, :, slots:]], dim=2)
    return energy_score(samples[0], samples[1], truth, probe.of(batch.portraits), slots, weights)


class StudentRun(ResumableRun[FlashTalkDiT]):
    """The student's run; it begins with the teacher's weights."""

    recipe: EnergyRecipe

    def __init__(
        self,
        recipe: EnergyRecipe,
        teacher: FlashTalkDiT,
        workers: Workers,
        weights: EnergyWeights | None = None,
        *,
        pixels: PixelHandOver | None = None,
    ) -> None:
        """`pixels`: what a recipe with `reencode` hands over through."""
        if recipe.reencode != (pixels is not None):
            raise ValueError(f"reencode={recipe.reencode} must say whether there is `pixels`")
        self.pixels = pixels
        if teacher.config != MODELS[recipe.model]:
            raise ValueError(
                f"model={recipe.model}: the teacher is of another size; set the teacher's model"
            )
        model = FlashTalkDiT(teacher.config, attention_impl="plain")
        model.load_state_dict(teacher.state_dict())
        model = workers.place(model)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        super().__init__(recipe, model, optimizer, workers)
        self.weights = weights or EnergyWeights()

    def advance(self, data: TrainingData) -> dict[str, float]:
        """One optimiser step."""
        recipe, workers = self.recipe, self.workers
        shared = np.random.default_rng(step_seed(recipe.seed, self.step, 0, 1))
        frames = int(shared.choice(recipe.frame_counts, p=recipe.frame_shares))
        exit_step = int(shared.choice(recipe.num_steps, p=recipe.exit_shares))
        first = float(shared.random() < recipe.first_chunk_share)
        own = bool(shared.random() < recipe.own_history_share)
        chunks = int(shared.integers(2, recipe.max_chunks + 1))
        left = min(1.0, (1 - self.done) / max(recipe.decay_share, 1e-9))
        rate = recipe.final_rate + (recipe.rate - recipe.final_rate) * left
        self.set_rate(rate * warmth(self.step, recipe.warm_up_steps))
        streams, score = workers.streams(recipe.streams), 0.0
        for stream in streams:
            rng = np.random.default_rng(step_seed(recipe.seed, self.step, stream, 2))
            generator = workers.generator(step_seed(recipe.seed, self.step, stream, 3))
            batch = self._batch(data, rng, generator, frames, first, chunks if own else 1)
            with workers.autocast(recipe.bf16):
                loss = student_loss(
                    self.model, batch, exit_step, recipe, generator, self.weights, data.probe
                )
            backward_share(loss, len(streams))
            score += float(loss.detach()) / len(streams)
        norm = self.update()
        return {**workers.average({f"score_{exit_step}": score}), "grad_norm": norm}

    def _batch(
        self,
        data: TrainingData,
        rng: np.random.Generator,
        generator: torch.Generator,
        frames: int,
        first: float,
        chunks: int,
    ) -> WindowBatch:
        """A window of recorded motion, or the last of several chunks of the student's own."""
        recipe = self.recipe
        if chunks == 1:
            return data.train.draw(
                rng, recipe.batch, frames, first_chunk_share=first, more_blinks=recipe.more_blinks
            )
        with self.workers.autocast(recipe.bf16):
            return own_history_batch(
                self.model,
                data.train,
                rng,
                generator,
                batch=recipe.batch,
                chunks=chunks,
                num_steps=recipe.num_steps,
                from_portrait=first > 0,
                pixels=self.pixels,
                join=recipe.join,
            )

    def averaged(self) -> FlashTalkDiT:
        """A copy of the model with the averaged weights."""
        return self.average_into(FlashTalkDiT(self.model.config))

    def told(self) -> dict[str, Any]:
        """The recipe, and the weights of the score as its table."""
        return {**super().told(), "weights": asdict(self.weights)}


def train(job: StudentRun, data: TrainingData, folder: Path) -> None:
    """Steps until the recipe's time or step count is reached."""
    recipe = job.recipe

    def watch(progress: RunProgress) -> None:
        validate(job, data, progress, folder, num_steps=recipe.num_steps)

    run_steps(
        job,
        lambda: job.advance(data),
        folder,
        samples=recipe.batch * (recipe.streams or job.workers.count),
        watch=watch,
        watch_minutes=recipe.validate_minutes,
    )


@app.default
def main(
    *,
    teacher: Path = Path("runs/teacher"),
    initial: Path | None = None,
    out: Path = Path("runs/student"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    codec: Path = Path("runs/codec/weights"),
    config: str = "student-embedded",
    overrides: Overrides = (),
    minutes: float | None = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the student.

    Args:
        teacher: folder of the teacher's run.
        initial: folder of exported weights to begin with instead, as those of a release.
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
    recipe = recipe_or_exit(EnergyRecipe, config, overrides, tables=["weights"])
    weights = recipe_or_exit(EnergyWeights, config, overrides, table="weights")
    if minutes is not None:
        recipe = replace(recipe, minutes=minutes)
    with Workers() as workers:
        configure_logging(out / "log.txt" if workers.leads else None)
        data = open_data(
            speech,
            bank,
            encoder,
            sequences=recipe.validation_sequences,
            chunks=recipe.validation_chunks,
        )
        job = StudentRun(
            recipe,
            exported_or_exit(initial, recipe.model)
            if initial is not None
            else teacher_or_exit(teacher, recipe.model),
            workers,
            weights,
            pixels=PixelHandOver.load(codec, bank.parent) if recipe.reencode else None,
        )
        resumed = resume_or_exit(job, out, allow_changes=allow_changes)
        log.info(
            "%s at step %d: %d clips, %d processes",
            "resumed" if resumed else "starting",
            job.step,
            len(data.train.clips.lengths),
            workers.count,
        )
        train(job, data, out)


if __name__ == "__main__":
    app()
