"""The whole 14B path shared by two processes: equal to one, and the same after kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from parity_fixtures import randomized
from tiny_released import dit_config, encoder_sizes, write_released
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("group_14b.py")


@pytest.fixture(scope="module")
def found(fixtures_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the leader saw; its program's words say what was done."""
    root = tmp_path_factory.mktemp("group")
    (root / "weights").mkdir()
    dit = randomized(FlashTalkDiT(dit_config(fixtures_dir, encoder_sizes(fixtures_dir))))
    folder, out = write_released(fixtures_dir, root / "weights", dit), root / "found.pt"
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(fixtures_dir), str(folder), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    seen: dict[str, Any] = torch.load(out)
    return seen


def assert_same_pictures(one: Tensor, other: Tensor) -> None:
    assert one.shape == other.shape
    assert (one.int() - other.int()).abs().max() <= 1


def test_a_group_shows_the_frames_of_one_process(found: dict[str, Any]) -> None:
    assert found["recorded"]
    assert len(found["alone"]) == 9
    assert found["alone"].float().std() > 1
    assert_same_pictures(found["group"], found["alone"])


def test_a_killed_follower_is_told_and_no_chunk_hangs(found: dict[str, Any]) -> None:
    assert found["loss"] == ("died", 1)
    assert "rank 1" in found["while lost"]


def test_without_its_follower_the_leader_encodes_what_sessions_leave_with(
    found: dict[str, Any],
) -> None:
    assert found["encode"] < 1e-5


def test_a_restarted_group_shows_the_same_frames(found: dict[str, Any]) -> None:
    assert found["restarts"] == 1
    assert torch.equal(found["restarted"], found["group"])
