"""The idle loop: there and back without a jump, entered only where the pose is near."""

import numpy as np
import pytest
import torch

from visavis.engine.avatar_frame import AvatarFrame
from visavis.engine.idle import IdleLoop


def frame(pose: float) -> AvatarFrame:
    pixels, silence = np.zeros((1, 1, 3), np.uint8), np.zeros(640, np.int16)
    return AvatarFrame(0, pixels, silence, False, False, torch.tensor([pose]))


def poses(loop: IdleLoop, count: int) -> list[float]:
    shown = [loop.next() for _ in range(count)]
    assert all(f is not None and f.pose is not None for f in shown)
    return [float(f.pose) for f in shown if f is not None and f.pose is not None]


def filled(length: int = 5) -> IdleLoop:
    loop = IdleLoop(length)
    for number in range(length):
        assert loop.next() is None
        loop.add(frame(float(number)))
    return loop


def test_it_goes_there_and_back_from_the_frame_on_screen() -> None:
    assert poses(filled(), 10) == [3, 2, 1, 0, 1, 2, 3, 4, 3, 2]


def test_it_goes_on_for_ever_without_a_jump() -> None:
    shown = [4.0, *poses(filled(), 200)]
    assert {abs(b - a) for a, b in zip(shown, shown[1:], strict=False)} == {1.0}


def test_after_speech_it_is_entered_at_the_nearest_pose() -> None:
    loop = filled()
    loop.interrupt()
    assert loop.next() is None
    loop.add(frame(2.2))
    assert poses(loop, 3) == [1, 0, 1]


def test_a_pose_that_is_far_from_all_is_no_way_in() -> None:
    loop = filled()
    loop.interrupt()
    for pose in (9.0, 8.0, 7.0):
        loop.add(frame(pose))
        assert loop.next() is None
    loop.add(frame(5.0))
    assert poses(loop, 2) == [3, 2]


def test_what_is_interrupted_before_it_is_whole_begins_anew() -> None:
    loop = IdleLoop(3)
    loop.add(frame(0.0))
    loop.add(frame(1.0))
    loop.interrupt()
    loop.add(frame(5.0))
    assert not loop.is_complete
    assert loop.next() is None


def test_idling_that_finds_no_way_in_becomes_the_loop() -> None:
    loop = filled(3)
    loop.interrupt()
    for pose in (50.0, 51.0, 52.0):
        loop.add(frame(pose))
    assert poses(loop, 3) == [51, 50, 51]


def test_a_loop_needs_two_frames() -> None:
    with pytest.raises(ValueError, match="length=1"):
        IdleLoop(1)
