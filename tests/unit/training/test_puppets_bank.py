"""The portrait bank on disk."""

from pathlib import Path

import numpy as np
import pytest

from visavis.engine.face.framing import Portrait
from visavis.engine.schematic import schematic_portrait
from visavis.training.codec_data import PuppetShow
from visavis.training.dit_data import PortraitBank
from visavis.training.puppets import bank
from visavis.training.puppets.bank import Crop, build_bank


class NoLandmarker:
    """Stands for the detector, which schematic crops do not need."""


def schematic_crops(path: Path, landmarker: object, seed: int) -> list[Crop]:
    plain = schematic_portrait()
    held = path.stem == "held"
    shifted = Portrait(plain.image, plain.landmarks + np.float32(1.0))
    return [Crop(path.stem, held, p) for p in ([plain] if held else [plain, shifted])]


def test_a_bank_has_every_crop_with_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "FaceLandmarker", NoLandmarker)
    monkeypatch.setattr(bank, "draw_crops", schematic_crops)
    for name in ("seen.jpg", "held.jpg", "notes.txt"):
        (tmp_path / name).touch()
    out = tmp_path / "out"
    assert build_bank(tmp_path, out) == 3
    loaded = PortraitBank.load(out / "bank.npz")
    assert loaded.held.tolist() == [True, False, False]
    assert loaded.basis.shape == (3, 17, 6, 16, 16)
    assert loaded.layout.shape == (3, 16, 16, 16)
    assert [len(PuppetShow(out, held=held)) for held in (True, False)] == [1, 2]
    assert PuppetShow(out, held=True)[0].name == "held"


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"portraits={tmp_path} has no \.jpg or \.png"):
        build_bank(tmp_path, tmp_path / "out")


def test_thirty_portraits_are_held_out() -> None:
    assert len(bank.HELD_OUT) == 30
