"""`visavis eval`: the embedded model's figures on held-out portraits and voices."""

import time
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import frame_portrait
from visavis.engine.weight_memory import WeightMemory
from visavis.training.evaluation.bootstrap import Measured, joined
from visavis.training.evaluation.job import Job
from visavis.training.evaluation.parts import RUN
from visavis.training.evaluation.photographs import find_photographs
from visavis.training.evaluation.plan import FULL, EvaluationPlan
from visavis.training.evaluation.report import RunRecord, print_table, write_json
from visavis.training.evaluation.subjects import (
    Subjects,
    held_out_portraits,
    spoken_recordings,
)
from visavis.training.identity import IdentityJudge
from visavis.training.landmarks import IndependentLandmarker
from visavis.training.speech.eval_set import read_eval_clips

FRAME_SIZE: Final = (256, 256)


def evaluate(
    *,
    portraits: Path | None = None,
    recordings: Path | None = None,
    photographs: Path | None = None,
    weights: Path | None = None,
    out: Path = Path("runs/eval"),
    json_file: Path | None = None,
    plan: EvaluationPlan = FULL,
    memory: WeightMemory | None = None,
) -> dict[str, float]:
    """Measure the plan's parts, print the table, write the sheets; returns the figures by name.

    Without recordings of people, their figures are left out. `photographs`: a folder of pictures
    more, to be looked at speaking. `memory`: how the transformer's weights are held; None: as they
    are.

    Raises:
        EvaluationDataError: pictures or recordings are missing.
        JudgeError: the judges' environment is.
    """
    paths = held_out_portraits(portraits)
    spoken = spoken_recordings(recordings)
    pictures = find_photographs(paths[0].parent, photographs)
    clips = read_eval_clips()
    with IndependentLandmarker() as landmarker, IdentityJudge() as identity:
        # Figures of one release compare with the next at the size that the model itself sees.
        engine = AvatarEngine.load(
            "embedded", weights=weights, memory=memory, frame_size=FRAME_SIZE
        )
        frame = partial(frame_portrait, landmarker=FaceLandmarker())
        subjects = Subjects(
            engine,
            {path.stem: partial(frame, path) for path in paths},
            clips,
            landmarker,
            identity,
            recordings=spoken,
            photographs={name: partial(frame, path) for name, path in pictures.items()},
        )
        return measure(subjects, plan, out=out, json_file=json_file)


def measure(
    subjects: Subjects, plan: EvaluationPlan, *, out: Path, json_file: Path | None = None
) -> dict[str, float]:
    """Measure the plan's parts on these subjects; see `evaluate`.

    The file is written after every part, so that a run cut short keeps what it has.
    """
    found: list[Measured] = []
    record = RunRecord(plan.num_steps, plan.seeds, chunk_frames=plan.chunk_frames)
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        job = Job(subjects=subjects, plan=plan, out=out, progress=progress)
        for part in plan.parts:
            start = time.perf_counter()
            found.append(RUN[part](job))
            record.seconds[part] = time.perf_counter() - start
            if json_file is not None:
                write_json(joined(found), json_file, record)
    result = joined(found)
    print_table(result.figures, intervals=result.intervals, clusters=result.clusters)
    took = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in record.seconds.items())
    console.print(f"{plan.seeds} seeds, {plan.num_steps} steps; {took}")
    return result.figures
