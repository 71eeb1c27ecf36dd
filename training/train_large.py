"""Both stages for a model of the released size, its networks in pieces on many GPUs.

    torchrun --nproc-per-node 8 -m visavis.training.train_large teacher --weights FOLDER \\
        --store runs/store --out runs/teacher-14b
    torchrun --nproc-per-node 8 -m visavis.training.train_large student --weights FOLDER \\
        --teacher runs/teacher-14b --store runs/store --out runs/student-14b

Losses, roll-outs and steps are those of the embedded model's trainers; what differs is where the
data comes from (`training.precompute`) and where the weights lie (`training.sharding`).
`--dry-run` says what a GPU would hold, without a GPU, weights or data.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import App, Parameter
from torch.distributed.fsdp import FSDPModule

from visavis.engine.codec.base import LatentCodec
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.original_keys import original_to_ours
from visavis.engine.tensor_files import TensorFiles
from visavis.training.clip_sheets import sheet
from visavis.training.conditioning_store import ConditioningStore, StoreError
from visavis.training.config_files import Overrides, recipe_or_exit
from visavis.training.distill import Distillation
from visavis.training.memory_plan import memory_table
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import MODELS, StudentRecipe, TeacherRecipe
from visavis.training.resumable_run import AllowChanges, resume_or_exit
from visavis.training.run_loop import Watch, run_steps
from visavis.training.sharding import (
    ReadWeight,
    ShardedWorkers,
    ShardingPlan,
    newest_checkpoint,
)
from visavis.training.stored_clips import StoredClips
from visavis.training.train_teacher import TeacherRun

app = App(help=__doc__)
Flag = Annotated[bool, Parameter(negative="")]


def released_weights(folder: Path, config: DiTConfig) -> ReadWeight:
    """Parameters of a folder in the released layout; each is read when it is asked for."""
    theirs = {ours: name for name, ours in original_to_ours(config).items()}
    files = TensorFiles(folder)
    return lambda name: files.read(theirs[name])


def start_distillation(
    recipe: StudentRecipe, config: DiTConfig, source: ReadWeight | Path, workers: ShardedWorkers
) -> Distillation:
    """The three networks of stage 2, from one set of weights."""
    return Distillation(
        recipe,
        workers.build(config, source, trained=False),
        workers,
        student=workers.build(config, source),
        critic=workers.build(config, source),
    )


def train(job: TeacherRun | Distillation, clips: StoredClips, folder: Path, *, chunks: int) -> None:
    """Steps up to the recipe's end; contact sheets show so many chunks."""
    recipe = job.recipe

    def advance() -> dict[str, float]:
        return job.advance(clips) if isinstance(job, TeacherRun) else job.round(clips)

    run_steps(
        job,
        advance,
        folder,
        samples=recipe.batch * (recipe.streams or job.workers.count),
        watch=show_samples(job, clips, folder, chunks),
        watch_minutes=recipe.validate_minutes,
    )


def show_samples(
    job: TeacherRun | Distillation, clips: StoredClips, folder: Path, chunks: int
) -> Watch:
    """Shows a contact sheet of the averaged weights' own roll-out of the store's first clip."""

    def show(progress: RunProgress) -> None:
        job.ema.swap(job.model)
        try:
            pixels = sheet(job.model, clips, job.workers.generator(7), chunks=chunks)
        finally:
            # A forward pass that no backward pass follows leaves the outermost pieces gathered.
            for module in job.model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
            job.ema.swap(job.model)
        if job.workers.leads:
            pixels.save(folder / f"sheet-{job.step:06d}.png")
            progress.picture(job.step, "validation/sheet", np.asarray(pixels))

    return show


def _open_clips(
    store: Path, workers: ShardedWorkers, codec: LatentCodec[Any] | None, focus_weight: float
) -> StoredClips:
    try:
        return StoredClips(
            ConditioningStore(store), workers.device, codec=codec, focus_weight=focus_weight
        )
    except StoreError as error:
        raise SystemExit(str(error)) from None


def _codec(weights: Path, workers: ShardedWorkers) -> WanCodec:
    """The VAE alone, in float32: history that is encoded coarsely is another history."""
    from visavis.engine.flashtalk_14b import load_vae

    vae, latent_size = load_vae(weights, workers.device, torch.float32)
    frame_size = (latent_size[0] * SPATIAL_STRIDE, latent_size[1] * SPATIAL_STRIDE)
    return WanCodec(vae, None, frame_size)


@app.command
def teacher(
    *,
    weights: Path | None = None,
    store: Path = Path("runs/store"),
    out: Path = Path("runs/teacher-14b"),
    config: str = "teacher-14b",
    overrides: Overrides = (),
    allow_changes: AllowChanges = False,
    dry_run: Flag = False,
) -> None:
    """Stage 1: adapt the released weights to short chunks.

    Args:
        weights: folder of the released checkpoint: where training starts, and the VAE.
        store: folder of encoded clips, see `visavis train conditions`.
        out: folder of the run; goes on from its checkpoint, if there is one.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        allow_changes: go on from a checkpoint that another recipe made.
        dry_run: print what each of so many GPUs would hold, and end.
    """
    recipe = recipe_or_exit(TeacherRecipe, config, overrides, tables=["sharding"])
    plan = recipe_or_exit(ShardingPlan, config, overrides, table="sharding")
    if dry_run:
        log_table(memory_table(MODELS[recipe.model], plan, batch=recipe.batch, stage=1))
        return
    folder = _needed(weights)
    from visavis.engine.flashtalk_14b import transformer_config

    sizes = transformer_config(folder)
    with ShardedWorkers(plan) as workers:
        configure_logging(out / "log.txt" if workers.leads else None)
        clips = _open_clips(store, workers, _codec(folder, workers), recipe.focus_weight)
        model = workers.build(sizes, released_weights(folder, sizes))
        job = TeacherRun(recipe, out, workers, model=model)
        _announce(job, resume_or_exit(job, out, allow_changes=allow_changes))
        train(job, clips, out, chunks=recipe.validation_chunks)


@app.command
def student(
    *,
    weights: Path | None = None,
    teacher: Path = Path("runs/teacher-14b"),
    store: Path = Path("runs/store"),
    out: Path = Path("runs/student-14b"),
    config: str = "student-14b",
    overrides: Overrides = (),
    allow_changes: AllowChanges = False,
    dry_run: Flag = False,
) -> None:
    """Stage 2: distil a few-step student on its own history.

    Args:
        weights: folder of the released checkpoint: the VAE; the transformer too, where `teacher`
            has no checkpoint.
        teacher: folder of stage 1's run.
        store: folder of encoded clips, see `visavis train conditions`.
        out: folder of the run; goes on from its checkpoint, if there is one.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        allow_changes: go on from a checkpoint that another recipe made.
        dry_run: print what each of so many GPUs would hold, and end.
    """
    recipe = recipe_or_exit(StudentRecipe, config, overrides, tables=["sharding"])
    plan = recipe_or_exit(ShardingPlan, config, overrides, table="sharding")
    if dry_run:
        log_table(memory_table(MODELS[recipe.model], plan, batch=recipe.batch, stage=2))
        return
    folder = _needed(weights)
    from visavis.engine.flashtalk_14b import transformer_config

    sizes = transformer_config(folder)
    trained = newest_checkpoint(teacher) is not None
    source = teacher if trained else released_weights(folder, sizes)
    with ShardedWorkers(plan) as workers:
        configure_logging(out / "log.txt" if workers.leads else None)
        if not trained:
            log.warning("%s has no checkpoint: the released weights are the teacher", teacher)
        clips = _open_clips(store, workers, _codec(folder, workers), recipe.focus_weight)
        job = start_distillation(recipe, sizes, source, workers)
        _announce(job, resume_or_exit(job, out, allow_changes=allow_changes))
        train(job, clips, out, chunks=recipe.validation_chunks)


def log_table(lines: list[str]) -> None:
    """Print to the log, which is what a command has to say."""
    configure_logging()
    log.info("%s", "\n".join(["", *lines]))


def _needed(weights: Path | None) -> Path:
    if weights is None:
        raise SystemExit("--weights: give the folder that docs/flashtalk-14b.md describes")
    return weights


def _announce(job: TeacherRun | Distillation, resumed: bool) -> None:
    log.info(
        "%s at step %d: %.2f B parameters in %d pieces",
        "resumed" if resumed else "starting",
        job.step,
        sum(parameter.numel() for parameter in job.model.parameters()) / 1e9,
        job.workers.count,
    )


if __name__ == "__main__":
    app()
