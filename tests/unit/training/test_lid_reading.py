"""Lids read off pictures by comparison."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import frame_portrait
from visavis.training.codec_data import Puppet, random_controls
from visavis.training.evaluation import lid_reading
from visavis.training.evaluation.lid_reading import LIDS, NoEyeError, read_lids

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    return Puppet.of("clara", frame_portrait(GALLERY / "clara.jpg", landmarker=FaceLandmarker()))


def test_each_lid_is_read_where_it_is_whatever_else_the_face_does(puppet: Puppet) -> None:
    rng = np.random.default_rng(3)
    controls = random_controls(rng, 6)
    moved = controls.copy()
    controls[:, LIDS] = rng.random((6, 2))
    moved[:, LIDS] = rng.random((6, 2))
    versions = [
        puppet.render(torch.from_numpy(puppet.basis.codes(rows))) for rows in (controls, moved)
    ]
    own, others = read_lids(puppet, controls, versions)
    np.testing.assert_allclose(own, controls[:, LIDS], atol=0.08)
    np.testing.assert_allclose(others, moved[:, LIDS], atol=0.08)


def test_without_an_eye_there_is_nothing_to_read(
    puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lid_reading, "LEAST_CHANGE", 1.5)
    controls = random_controls(np.random.default_rng(0), 1)
    frames = puppet.render(torch.from_numpy(puppet.basis.codes(controls)))
    with pytest.raises(NoEyeError, match="clara"):
        read_lids(puppet, controls, [frames])
