"""The small teacher of the table: stage 1 on prepared chunks."""

from pathlib import Path

from visavis.training.ablation.data import AblationData
from visavis.training.parallel import Workers
from visavis.training.progress import RunProgress, log
from visavis.training.recipes import TeacherRecipe
from visavis.training.train_teacher import TeacherRun


def train_teacher(
    recipe: TeacherRecipe, data: AblationData, folder: Path, workers: Workers
) -> None:
    """All steps of the recipe, going on from the folder's checkpoint; its rate falls by steps."""
    run = TeacherRun(recipe, folder, workers)
    if run.resume(folder):
        log.info("resumed at step %d", run.step)
    saved = run.elapsed
    with RunProgress(
        folder,
        recipe.steps,
        start=run.step,
        every=recipe.log_every,
        silent=not workers.leads,
    ) as progress:
        before = run.elapsed
        while run.step < recipe.steps:
            losses = run.advance(data)
            progress.step(run.step, recipe.batch * workers.count, losses)
            run.elapsed = before + progress.elapsed
            if workers.leads and run.elapsed - saved > 60 * recipe.save_minutes:
                saved = run.elapsed
                run.save(folder)
    if workers.leads:
        run.save(folder)
