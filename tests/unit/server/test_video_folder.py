"""Replicas that share a data folder keep their hands off each other's renderings."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from visavis.server.replica import file_name
from visavis.server.video_folder import STALE_S, VideoFolder


def video_in(folder: Path) -> Path:
    video = folder / "video-1" / "video.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"x")
    return video


def age(folder: Path, seconds: float) -> None:
    then_s = time.time() - seconds
    os.utime(folder, (then_s, then_s))


async def test_a_start_removes_what_the_same_replica_left_and_nothing_else(tmp_path: Path) -> None:
    mine, others = VideoFolder(tmp_path, "a"), VideoFolder(tmp_path, "b")
    left, running = video_in(mine.path), video_in(others.path)
    mine.start()
    assert not left.exists()
    made = video_in(mine.path)
    await mine.close()
    assert not made.exists()
    assert running.exists()


def test_what_replicas_left_that_died_goes_and_what_is_touched_stays(tmp_path: Path) -> None:
    one, two = VideoFolder(tmp_path, "a"), VideoFolder(tmp_path, "b")
    dead, first, second = (video_in(tmp_path / name) for name in ("video-dead", "a", "b"))
    for folder in tmp_path.iterdir():
        age(folder, STALE_S + 60)
    two.sweep()
    assert second.exists()
    assert not dead.exists()
    assert not first.exists()
    again = video_in(one.path)
    age(one.path, STALE_S + 60)
    one.sweep()
    two.sweep()
    assert again.exists()
    assert second.exists()


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    VideoFolder(tmp_path / "videos", "a").sweep()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "pod-1", "ä" * 128, " "])
def test_a_replicas_name_makes_one_safe_name_of_a_file(name: str) -> None:
    made = file_name(name)
    assert Path(made).name == made
    assert made.isascii()
    assert made[0].isalnum()
    assert len(made) <= 64
    assert made != file_name(name + "x")
