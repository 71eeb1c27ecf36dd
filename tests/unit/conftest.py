"""Fixtures shared by the tests of several packages."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.schematic import schematic_portrait


@pytest.fixture(scope="module")
def tiny_engine() -> AvatarEngine:
    """The smallest model, with weights of its own that are the same every time."""
    torch.manual_seed(0)
    return AvatarEngine.load("test", frame_size=(256, 256))


@pytest.fixture(scope="module")
def tiny_avatar(tiny_engine: AvatarEngine) -> Avatar:
    """A face of coarse noise."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (32, 32, 3)), 8, axis=0), 8, axis=1)
    return tiny_engine.prepare_avatar(
        replace(schematic_portrait(256), image=image.astype(np.uint8))
    )
