"""The ablation table of the second stage, on a small model (docs/research.md).

    visavis train ablation teacher     the small teacher, once
    visavis train ablation rows        every row and seed; start it as often as there are cores
    visavis train ablation report      the table and the picture

Each goes on where it was stopped.
"""

import sys
from pathlib import Path

import torch
from cyclopts import App

from visavis.training.ablation.data import AblationData
from visavis.training.ablation.report import draw_picture, markdown, read_records
from visavis.training.ablation.table import LONG_FOLDER, Table, jobs
from visavis.training.ablation.teacher import train_teacher
from visavis.training.parallel import Workers
from visavis.training.progress import configure_logging, log
from visavis.training.recipes import small_student, small_teacher
from visavis.training.run_models import averaged_model

app = App(help=__doc__)


@app.command
def teacher(
    *,
    out: Path = Path("runs/ablation"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    steps: int | None = None,
) -> None:
    """Train the small teacher; may be started by torchrun in several processes.

    Args:
        out: folder of the table's runs.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
        steps: optimiser steps, if not the recipe's.
    """
    recipe = small_teacher() if steps is None else small_teacher(steps)
    with Workers() as workers:
        configure_logging(out / "teacher" / "log.txt" if workers.leads else None)
        data = load_data(out, speech, bank, encoder)
        train_teacher(recipe, data, out / "teacher", workers)


@app.command
def rows(
    *,
    out: Path = Path("runs/ablation"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    evaluations: int = 10_000,
    sessions: int = 12,
    chunks: int = 100,
    long_chunks: int = 1000,
) -> None:
    """Train and measure every row and seed that is not there yet.

    Args:
        out: folder of the table's runs; the teacher is in its folder `teacher`.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
        evaluations: network evaluations that a row may spend on training.
        sessions: held portraits that are rolled out.
        chunks: length of those roll-outs.
        long_chunks: length of those that half of the sessions make in some rows; 0: none.
    """
    configure_logging(out / "log.txt")
    table = Table(
        out / "rows",
        load_data(out, speech, bank, encoder),
        averaged_model(out / "teacher").eval(),
        evaluations=evaluations,
        sessions=sessions,
        chunks=chunks,
        long_chunks=long_chunks,
    )
    made = sum(table.make(row, seed) for row, seed in jobs())
    log.info("%d rows made by this process", made)


@app.command
def report(
    *,
    out: Path = Path("runs/ablation"),
    picture: Path = Path("docs/images/ablation.png"),
    table: Path | None = None,
) -> None:
    """Print the table and draw the picture of drift and recovery.

    Args:
        out: folder of the table's runs.
        picture: where the picture goes.
        table: also write the table there, as Markdown.
    """
    records = read_records(out / "rows")
    long = out / "rows" / LONG_FOLDER
    spoken_long = read_records(long) if long.exists() else None
    text = markdown(records, spoken_long)
    sys.stdout.write(text)
    if table is not None:
        table.write_text(text)
    draw_picture(records, picture, spoken_long)


def load_data(out: Path, speech: Path, bank: Path, encoder: Path) -> AblationData:
    """Data of the small recipes."""
    return AblationData.load(speech, bank, encoder, out, chunk_frames=small_student().chunk_frames)


if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
