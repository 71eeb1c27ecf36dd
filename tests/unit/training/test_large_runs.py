"""The 14B's loop, on a model of its kind in pieces: what a run leaves in its folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny_clips
import two_processes
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from visavis.training.sharding import ShardedWorkers, newest_checkpoint
from visavis.training.train_large import train
from visavis.training.train_teacher import TeacherRun


def test_a_run_in_pieces_saves_shows_and_goes_on(tmp_path: Path) -> None:
    clips = tiny_clips.tiny_clips(tmp_path / "store")
    folder = tmp_path / "run"

    def run(workers: ShardedWorkers, steps: int) -> TeacherRun:
        recipe = replace(two_processes.LARGE_TEACHER, steps=steps, log_every=1)
        model = workers.place(tiny_clips.tiny_model())
        return TeacherRun(recipe, folder, workers, model=model)

    with ShardedWorkers(two_processes.PLAN) as workers:
        train(run(workers, 1), clips, folder, chunks=1)
        assert newest_checkpoint(folder) is not None
        longer = run(workers, 2)
        assert longer.resume(folder)
        train(longer, clips, folder, chunks=1)
        assert longer.step == 2
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert [event.step for event in events.Images("validation/sheet")] == [1, 2]
    height, width = tiny_clips.FRAME
    for step in (1, 2):
        sheet = np.asarray(Image.open(folder / f"sheet-{step:06d}.png"))
        assert sheet.shape == (height, 7 * width, 3)
