"""How far motion frames come back from where they were, when the codec reads what it drew.

    python -m visavis.training.hand_over_error --portraits clients/web/public/avatars

The paper's hand-over decodes the last frames and encodes them again; the embedded model's hands
codes over exactly, unless its codec was loaded to `reencode`. The errors of that way are what
hand-overs of the ablation add (`ablation/hand_over.py`).

Legend: P portraits, K hand-overs of each, N frames, h w control grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import unpack_codes
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait
from visavis.engine.face.image import load_image
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.weights import find_weights
from visavis.training.codec_data import Puppet
from visavis.training.puppets.bank import HELD_OUT
from visavis.training.speech.eval_set import read_eval_clips

app = App(help=__doc__)


@torch.no_grad()
def read_back(codec: MotionCodec, portrait: Portrait, codes_N6hw: Tensor) -> Tensor:
    """Codes [5, 6, h, w] after the deployed hand-over of five frames: drawn, then encoded.

    Raises:
        ValueError: the codec hands codes over, or there are not five frames.
    """
    if not codec.reencode or len(codes_N6hw) != MOTION_FRAMES:
        raise ValueError(
            f"reencode={codec.reencode}, {len(codes_N6hw)} frames: load the codec with "
            f"reencode=True and give {MOTION_FRAMES} frames"
        )
    reference = codec.reference(portrait)
    latents = codec.motion_latents(codec.draw(codes_N6hw, reference), reference)
    codes: Tensor = unpack_codes(latents[None])[0]
    return codes


def record_errors(
    codec: MotionCodec, portraits: Sequence[Portrait], *, each: int = 1, seed: int = 0
) -> Tensor:
    """Errors [P, K, 5, 6, h, w] of `each` hand-overs of every portrait's puppet as it speaks.

    Each shows five frames in a row, drawn from the evaluation's speech.
    """
    rng = np.random.default_rng(seed)
    clips, people = read_eval_clips(), []
    for number, portrait in enumerate(portraits):
        puppet, errors = Puppet.of(str(number), portrait), []
        for _ in range(each):
            controls = clips[int(rng.integers(len(clips)))].controls
            start = int(rng.integers(len(controls) - MOTION_FRAMES + 1))
            codes = torch.from_numpy(puppet.basis.codes(controls[start : start + MOTION_FRAMES]))
            errors.append(read_back(codec, portrait, codes) - codes)
        people.append(torch.stack(errors))
    return torch.stack(people)


@dataclass(frozen=True, slots=True)
class ErrorShares:
    """Root mean squares, in units of the code: of all errors; of what is common to the five frames
    of a hand-over; of what is common to all hand-overs of a person, so that it can add up."""

    all: float
    hand_over: float
    person: float

    @classmethod
    def of(cls, errors_PK56hw: Tensor) -> "ErrorShares":
        """Of recorded errors."""
        return cls(
            _size(errors_PK56hw),
            _size(errors_PK56hw.mean(dim=2)),
            _size(errors_PK56hw.mean(dim=(1, 2))),
        )


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def framed(folder: Path) -> list[Portrait]:
    """The folder's pictures as the engine frames them; of the training's, those held out alone.

    Raises ValueError if there are none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".png"})
    paths = [path for path in paths if path.stem in HELD_OUT] or paths
    if not paths:
        raise ValueError(f"portraits={folder} has no .jpg or .png files; name another folder")
    landmarker = FaceLandmarker()
    return [frame_portrait(load_image(path), landmarker=landmarker) for path in paths]


@app.default
def main(
    *,
    portraits: Path,
    weights: Path | None = None,
    each: int = 6,
    seed: int = 0,
    save: Path | None = None,
) -> None:
    """Print the error over a folder of portraits.

    Args:
        portraits: folder of pictures, best of people that the codec never saw.
        weights: folder of the codec's weights, if not the bundled ones.
        each: hand-overs of every portrait.
        seed: of the poses.
        save: file for the errors themselves, as `visavis train ablation rows` wants them.
    """
    pictures = framed(portraits)
    codec = MotionCodec.load(find_weights("embedded", weights), reencode=True)
    errors = record_errors(codec, pictures, each=each, seed=seed)
    shares = ErrorShares.of(errors)
    print(  # noqa: T201
        f"{shares.all:.4f} root mean square error of the code, {len(pictures)} portraits; common "
        f"to a hand-over's frames {shares.hand_over:.4f}, to all of a person {shares.person:.4f}"
    )
    if save is not None:
        save.parent.mkdir(parents=True, exist_ok=True)
        np.savez(save, errors=errors.numpy().astype(np.float16))


if __name__ == "__main__":
    app()
