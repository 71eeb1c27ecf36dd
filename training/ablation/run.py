"""The ablation table of the second stage at small scale (docs/research.md).

visavis train ablation teacher
visavis train ablation rows
visavis train ablation report
"""

from pathlib import Path

import torch
from cyclopts import App

from visavis.training.ablation.data import AblationData
from visavis.training.ablation.teacher import train_teacher
from visavis.training.progress import configure_logging
from visavis.training.recipes import TEACHERS

app = App(help=__doc__)
CHUNK_FRAMES = 17


@app.command
def teacher(
    *,
    out: Path = Path("runs/ablation"),
    speech: Path = Path("runs/speech"),
    bank: Path = Path("runs/portraits/bank.npz"),
    encoder: Path = Path("runs/speech_encoder/weights"),
) -> None:
    """Train the small teacher; goes on where it was stopped.

    Args:
        out: folder of the table's runs.
        speech: folder of speech shards.
        bank: the portrait bank.
        encoder: folder of the speech encoder's weights.
    """
    configure_logging(out / "teacher" / "log.txt")
    data = AblationData.load(speech, bank, encoder, out, chunk_frames=CHUNK_FRAMES)
    train_teacher(TEACHERS["small"](), data, out / "teacher")


if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
