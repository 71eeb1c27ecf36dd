"""Speech and portraits as the first stages write them, small and drawn: no voice, no photograph."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.engine.face.framing import Portrait
from visavis.engine.schematic import schematic_portrait
from visavis.training.puppets import bank
from visavis.training.puppets.bank import Crop, build_bank
from visavis.training.puppets.controls import CONTROLS
from visavis.training.speech.dataset import shard_path

CLIPS, CLIP_FRAMES = 12, 92


class NoLandmarker:
    """Stands for the detector, which drawn crops do not need."""


def _crops(path: Path, landmarker: object, seed: int) -> list[Crop]:
    plain = schematic_portrait()
    held = path.stem == "held"
    shifted = Portrait(plain.image, plain.landmarks + np.float32(1.0))
    return [Crop(path.stem, held, picture) for picture in ([plain] if held else [plain, shifted])]


def write_portraits(folder: Path) -> Path:
    """A bank of two portraits to train on and one held out; returns its folder."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for name in ("seen.jpg", "held.jpg"):
        (pictures / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank, "FaceLandmarker", NoLandmarker)
        patch.setattr(bank, "draw_crops", _crops)
        build_bank(pictures, folder / "portraits")
    return folder / "portraits"


def write_speech(folder: Path) -> Path:
    """One shard of clips in which a mouth follows a loudness; returns its folder."""
    rng = np.random.default_rng(0)
    frames = CLIPS * CLIP_FRAMES
    loudness = np.sin(np.arange(frames) / 3) ** 2
    controls = 0.1 * rng.standard_normal((frames, len(CONTROLS))).astype(np.float32)
    controls[:, CONTROLS.index("jaw")] = loudness
    noise = rng.standard_normal((frames, 4, 64))
    features = (noise + 3 * loudness[:, None, None]).astype(np.float16)
    speech = folder / "speech"
    speech.mkdir(parents=True)
    np.savez(
        shard_path(speech, 0),
        features=features,
        controls=controls,
        audio=np.zeros(0, np.int16),
        voice=np.array(["drawn"] * CLIPS),
        offsets=np.arange(0, frames + 1, CLIP_FRAMES),
    )
    return speech


def same(a: object, b: object) -> bool:
    """Whether two nests of tensors and values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b
