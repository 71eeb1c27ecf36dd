"""Write a run's averaged weights where the engine finds them.

python -m visavis.training.export_dit --source runs/student --out weights/embedded
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import torch
from cyclopts import App

from visavis.engine.audio.speech_front_end import load_speech_encoder
from visavis.engine.dit.checkpoint import export_original
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.tensor_files import save_tensors
from visavis.engine.weights import CONFIG_FILE, DIT_FILE, WeightsError
from visavis.training.progress import configure_logging, log
from visavis.training.run_models import averaged_model
from visavis.training.sharding import newest_checkpoint, sharded_average
from visavis.training.train_speech_encoder import write_speech_encoder

app = App(help=__doc__)
CODEC_FILES: Final = ("codec.json", "codec.safetensors")

Layout = Literal["own", "original"]


def write_dit(model: FlashTalkDiT, folder: Path, layout: Layout = "own") -> Path:
    """Write the transformer in bfloat16 and the sizes as "dit" in config.json.

    "own" is `dit.safetensors`, "original" shards under the released checkpoint's names; the engine
    reads either. Other entries of an existing config.json stay. Returns the weights' path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DIT_FILE
    if layout == "original":
        path.unlink(missing_ok=True)  # or the engine would go on reading it
        path = export_original(model, folder, dtype=torch.bfloat16)
    else:
        state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
        save_tensors(state, path)
    config_path = folder / CONFIG_FILE
    config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
    config["dit"] = asdict(model.config)
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return path


def copy_codec(source: Path, folder: Path) -> None:
    """Copy a codec's weights into a weights folder; its own stay where `source` has none.

    Raises:
        FileNotFoundError: neither has any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if all((source / name).is_file() for name in CODEC_FILES):
        for name in CODEC_FILES:
            shutil.copyfile(source / name, folder / name)
        return
    missing = [name for name in CODEC_FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"codec={source}: no {' and '.join(missing)} there, nor in {folder}; train the codec "
            "or name the folder of its weights"
        )
    log.info("%s has no codec: the one in %s stays", source, folder)


@app.default
def main(
    *,
    source: Path = Path("runs/student"),
    encoder: Path = Path("runs/speech_encoder/weights"),
    codec: Path = Path("runs/codec/weights"),
    out: Path = Path("weights/embedded"),
    layout: Layout = "own",
) -> None:
    """Export a teacher's or a student's run, with the speech encoder that it was trained with and
    the codec: a folder for `visavis serve --weights`.

    Args:
        source: folder with the run's checkpoint.
        encoder: folder of the speech encoder's weights.
        codec: folder of the codec's weights; where there is none, the codec in `out` stays.
        out: weights folder of the engine.
        layout: names of the transformer's tensors: ours, or those of the released checkpoint.
    """
    configure_logging()
    try:
        if newest_checkpoint(source) is not None:
            # The 14B model has Wan's VAE and hears through wav2vec2; neither is trained.
            path = write_dit(sharded_average(source), out, "original")
        else:
            model, heard = averaged_model(source), load_speech_encoder(encoder)
            copy_codec(codec, out)
            path = write_dit(model, out, layout)
            write_speech_encoder(heard, out)
    except (OSError, WeightsError) as error:
        raise SystemExit(str(error)) from None
    log.info("wrote %s", path)


if __name__ == "__main__":
    app()
