"""Write a run's averaged weights where the engine finds them.

python -m visavis.training.export_dit --source runs/student --out weights/embedded
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from cyclopts import App
from safetensors.torch import save_file

from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.weights import CONFIG_FILE, DIT_FILE
from visavis.training.distill import averaged_model
from visavis.training.progress import configure_logging, log

app = App(help=__doc__)


def write_dit(model: FlashTalkDiT, folder: Path) -> Path:
    """Write `dit.safetensors` in bfloat16 and the sizes as "dit" in config.json.

    Other entries of an existing config.json stay. Returns the weights' path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DIT_FILE
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(state, path)
    config_path = folder / CONFIG_FILE
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
    config["dit"] = asdict(model.config)
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return path


@app.default
def main(*, source: Path = Path("runs/student"), out: Path = Path("weights/embedded")) -> None:
    """Export a teacher's or a student's run.

    Args:
        source: folder with the run's checkpoint.
        out: weights folder of the engine.
    """
    configure_logging()
    path = write_dit(averaged_model(source), out)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    app()
