"""The portrait bank: framed crops of every portrait with their seams' layout and motion bases.

`python -m visavis.training.puppets.bank --portraits DIR --out runs/portraits`
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import track

from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import CropJitter, NoFaceError, Portrait, frame_portrait
from visavis.engine.face.image import load_image
from visavis.engine.face.layout import layout_latents, measure_layout
from visavis.training.puppets.basis import fit_basis

HELD_OUT: Final = frozenset(
    json.loads(Path(__file__).with_name("held_out.json").read_text(encoding="utf-8"))
)
CROPS: Final = 4


@dataclass(frozen=True, slots=True)
class Crop:
    """One framed crop: its name, whether training must not see it, and the portrait."""

    name: str
    held_out: bool
    portrait: Portrait


def draw_crops(path: Path, landmarker: FaceLandmarker, seed: int) -> list[Crop]:
    """The canonical crop of a picture and, for training portraits, jittered and mirrored ones."""
    image = load_image(path)
    held_out = path.stem in HELD_OUT
    crops = [Crop(path.stem, held_out, frame_portrait(image, landmarker=landmarker))]
    rng = np.random.default_rng([seed, *path.stem.encode()])
    for number in range(0 if held_out else CROPS - 1):
        jitter = CropJitter(
            dx=float(rng.normal(0, 0.012)),
            dy=float(rng.normal(0, 0.012)),
            scale=float(np.exp(rng.normal(0, 0.05))),
            angle=float(rng.normal(0, 0.03)),
        )
        picture = np.ascontiguousarray(image[:, ::-1]) if number % 2 == 0 else image
        portrait = frame_portrait(picture, landmarker=landmarker, jitter=jitter)
        crops.append(Crop(path.stem, held_out, portrait))
    return crops


def build_bank(portraits: Path, out: Path, *, seed: int = 0) -> int:
    """Write `bank.npz` (basis, rest, layout, split, names) and `crops.npz` (images, landmarks).

    Returns the number of crops. Raises ValueError when the folder has no pictures.
    """
    paths = sorted(p for p in portraits.iterdir() if p.suffix.lower() in {".jpg", ".png"})
    if not paths:
        raise ValueError(f"portraits={portraits} has no .jpg or .png files; name another folder")
    landmarker = FaceLandmarker()
    crops: list[Crop] = []
    for path in track(paths, "Framing portraits"):
        try:
            crops += draw_crops(path, landmarker, seed)
        except NoFaceError as error:
            print(f"{path.name} left out: {error}")  # noqa: T201
    basis, rest, layouts = [], [], []
    for crop in track(crops, "Fitting bases"):
        layout = measure_layout(crop.portrait.image, crop.portrait.landmarks)
        fitted = fit_basis(layout)
        basis.append(fitted.basis)
        rest.append(fitted.rest)
        layouts.append(layout_latents(layout))
    out.mkdir(parents=True, exist_ok=True)
    split = np.array(["held" if crop.held_out else "train" for crop in crops])
    names = np.array([crop.name for crop in crops])
    np.savez(
        out / "bank.npz",
        basis=np.stack(basis),
        rest=np.stack(rest),
        layout=np.stack(layouts),
        split=split,
        names=names,
    )
    np.savez(
        out / "crops.npz",
        images=np.stack([crop.portrait.image for crop in crops]),
        landmarks=np.stack([crop.portrait.landmarks for crop in crops]),
        split=split,
        names=names,
    )
    return len(crops)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/portraits"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count = build_bank(arguments.portraits, arguments.out, seed=arguments.seed)
    print(f"{count} crops in {arguments.out}")  # noqa: T201


if __name__ == "__main__":
    main()
