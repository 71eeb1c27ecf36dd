"""The `visavis` program: joins the commands of the server and of training, each loaded lazily."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from visavis import plan_cli
from visavis.engine.weight_memory import Precision, WeightMemory
from visavis.server import cli as server_cli
from visavis.server.cli_errors import fail

# The stages of training in their order; docs/training.md explains them.
STAGES = {
    "portraits": ("visavis.training.puppets.bank", "Make the bank of photo puppets."),
    "speech": ("visavis.training.speech.dataset", "Make synthetic speech with known phonemes."),
    "speech-encoder": (
        "visavis.training.train_speech_encoder",
        "Train the speech encoder that the transformer hears through.",
    ),
    "codec": ("visavis.training.train_codec", "Train the motion codec's painter and encoder."),
    "teacher": ("visavis.training.train_teacher", "Train the flow-matching teacher."),
    "student": ("visavis.training.train_student", "Train the few-step student."),
    "distill": ("visavis.training.distill", "Correct a student on its own history."),
    "ablation": ("visavis.training.ablation.run", "Compare variants of the distillation."),
    "export": ("visavis.training.export_dit", "Write the student's weights."),
    "conditions": ("visavis.training.precompute", "Encode clips for training the 14B model."),
    "14b": ("visavis.training.train_large", "Train the 14B model's teacher or student."),
}


def evaluate(
    *,
    portraits: Path | None = None,
    recordings: Path | None = None,
    photographs: Path | None = None,
    weights: Path | None = None,
    out: Path = Path("runs/eval"),
    json: Path | None = None,
    steps: int = 4,
    chunk_frames: int = 33,
    seeds: int | None = None,
    parts: str | None = None,
    quantize: Precision | None = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure the embedded model on portraits and voices that it was not trained on.

    Parameters
    ----------
    portraits
        Folder of the held-out pictures. [default: $VISAVIS_PORTRAITS]
    recordings
        Folder of recorded speech, to see how the mouth answers. [default: $VISAVIS_RECORDINGS]
    photographs
        Folder of further pictures, to be looked at speaking.
    weights
        Folder of the model's weights, if not the bundled one.
    out
        Folder for the contact sheets.
    json
        Also write the figures to this file.
    steps
        Denoising steps a chunk.
    chunk_frames
        The longest chunk that talks are made in, and the length of all chunks of long runs: 33, 17,
        13 or 9. Live speech has short ones.
    seeds
        How often each talk is made, with noise of its own. [default: 3; with --quick: 2]
    parts
        What to measure, by commas: speed, autoencoder, talking, recordings, photographs, endurance,
        stability. [default: all]
    quantize
        Keep the blocks' weights in eight bits: int8, fp8, int8-dynamic or fp8-dynamic.
        [default: as they are]
    quick
        A few clips only.
    """
    from visavis.training.evaluation.plan import FULL, QUICK, parse_parts
    from visavis.training.evaluation.run import evaluate as run
    from visavis.training.frame_judge import JudgeError

    try:
        plan = replace(QUICK if quick else FULL, num_steps=steps, chunk_frames=chunk_frames)
        if seeds is not None:
            plan = replace(plan, seeds=seeds)
        if parts is not None:
            plan = replace(plan, parts=parse_parts(parts))
        run(
            portraits=portraits,
            recordings=recordings,
            photographs=photographs,
            weights=weights,
            out=out,
            json_file=json,
            plan=plan,
            memory=WeightMemory(quantize=quantize),
        )
    except (ValueError, OSError, JudgeError) as error:
        fail(error)


def _stage(module: str, text: str) -> Callable[..., None]:
    """A command that hands its arguments to a stage's own program."""

    def run(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    run.__doc__ = text
    return run


def build_app() -> App:
    """All commands; importing them must not import torch, so that --help is instant."""
    app = App(
        name="visavis",
        help="Real-time streaming avatars: one portrait and a stream of speech in, "
        "a talking face out.",
        version=version("visavis"),
        version_flags=["--version", "-V"],
    )
    server_cli.register(app)
    plan_cli.register(app)
    app.command(evaluate, name="eval")
    train = App(name="train", help="Train the embedded model, one stage after the other.")
    for name, (module, text) in STAGES.items():
        # A stage answers --help itself, with its own options.
        train.command(_stage(module, text), name=name, help_flags=[], version_flags=[])
    app.command(train)
    return app


def main() -> None:
    """Entry point of the console script."""
    build_app()()
