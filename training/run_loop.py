"""The loop around every trainer's steps, and what it shows while it trains."""

import time
from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any, Protocol

import torch

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.parallel import Workers
from visavis.training.progress import RunProgress
from visavis.training.resumable_run import ResumableRun
from visavis.training.validation import ValidationSet

Watch = Callable[[RunProgress], None]


def run_steps(
    job: ResumableRun[Any],
    advance: Callable[[], Mapping[str, float]],
    folder: Path,
    *,
    samples: int,
    watch: Watch | None = None,
    watch_minutes: float = inf,
) -> None:
    """Steps until the recipe's time or step count is reached.

    Args:
        job: the run; saved in `folder` every `save_minutes` and at the end.
        advance: one step; what it reports.
        folder: of the run.
        samples: of a step, over all processes.
        watch: shows how far the model has come, every `watch_minutes` and at the end; all
            processes call it.
        watch_minutes: wall-clock.
    """
    recipe, leads, timed = job.recipe, job.workers.leads, isfinite(job.recipe.minutes)
    saved = watched = job.elapsed
    finished = job.finished
    with RunProgress(
        folder,
        60 * recipe.minutes if timed else recipe.steps,
        start=job.elapsed if timed else job.step,
        by_time=timed,
        every=recipe.log_every,
        silent=not leads,
    ) as progress:
        while not finished:
            began = time.monotonic()
            losses = advance()
            # All decide alike: their clocks were averaged with the last gradient.
            finished = job.finished
            if leads:
                progress.step(job.step, samples, losses)
            if watch is not None and (finished or job.elapsed - watched > 60 * watch_minutes):
                watched = job.elapsed
                watch(progress)
            if finished or job.elapsed - saved > 60 * recipe.save_minutes:
                saved = job.elapsed
                job.save(folder)
            job.elapsed += time.monotonic() - began


class SamplingRun(Protocol):
    """A run of the embedded model."""

    step: int
    recipe: Any

    @property
    def workers(self) -> Workers: ...

    def averaged(self) -> FlashTalkDiT: ...


class ValidatedOn(Protocol):
    """Data with sequences that training never sees."""

    @property
    def validation(self) -> ValidationSet: ...

    def refresh(self) -> bool: ...


def validate(
    job: SamplingRun,
    data: ValidatedOn,
    progress: RunProgress,
    folder: Path,
    *,
    num_steps: int = 4,
    sheet: bool = True,
) -> None:
    """Roll the averaged weights out on unseen portraits and clips; the leader alone does.

    Figures go to the log and TensorBoard, faces and curves to `sheet-<step>.png` and TensorBoard.
    """
    if not job.workers.leads:
        return
    with torch.no_grad(), job.workers.autocast(job.recipe.bf16):
        sampled = data.validation.sample(job.averaged(), num_steps=num_steps)
    metrics = data.validation.metrics(sampled)
    data.refresh()
    progress.report(job.step, "validation", metrics)
    if sheet:
        title = f"step {job.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in metrics.items())
        pixels = data.validation.sheet(sampled, folder / f"sheet-{job.step:06d}.png", title)
        progress.picture(job.step, "validation/sheet", pixels)
