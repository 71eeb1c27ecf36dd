"""Idle motion made once and shown again and again, without a jump where it begins and turns."""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.engine.avatar_frame import AvatarFrame

LOOP_FRAMES = 100
# A step into the loop may be so many times a usual step within it.
LARGEST_STEP = 1.5


class IdleLoop:
    """A run of idle frames, played there and back, so that its ends are turns and not jumps.

    After speech the loop is entered at the frame nearest to the one on screen, once one is near
    enough; until then idle frames are made, and if that takes as long as a loop, they become it.
    """

    def __init__(self, length: int = LOOP_FRAMES) -> None:
        """`length` frames, at least 2."""
        if length < 2:
            raise ValueError(f"length={length}: a loop needs at least 2 frames")
        self._length = length
        self._loop: tuple[AvatarFrame, ...] = ()
        self._usual_step = 0.0
        self._recording: list[AvatarFrame] = []
        self._position: int | None = None
        self._direction = -1

    @property
    def is_complete(self) -> bool:
        """Whether idling costs nothing any more, but for finding the way in."""
        return bool(self._loop)

    def add(self, frame: AvatarFrame) -> None:
        """An idle frame was made and shown, next to the one added before."""
        self._recording.append(frame)
        if len(self._recording) == self._length:
            self._loop = tuple(self._recording)
            self._recording.clear()
            poses = [f.pose for f in self._loop if f.pose is not None]
            steps = torch.stack([distance(a, b) for a, b in zip(poses, poses[1:], strict=False)])
            self._usual_step = float(steps.median())
            self._position, self._direction = self._length - 1, -1

    def interrupt(self) -> None:
        """Something else is shown: what follows is not next to what was added."""
        self._position = None
        self._recording.clear()

    def next(self) -> AvatarFrame | None:
        """The loop's next frame, to be shown again; None: idle frames must be made."""
        if self._position is None and not self._enter():
            return None
        assert self._position is not None
        if not 0 <= self._position + self._direction < self._length:
            self._direction = -self._direction
        self._position += self._direction
        return self._loop[self._position]

    def _enter(self) -> bool:
        """Go on from the frame that is nearest to the last one made, if it is near enough."""
        if not self._loop or not self._recording:
            return False
        pose = self._recording[-1].pose
        if pose is None:
            return False
        gaps = torch.stack([distance(f.pose, pose) for f in self._loop if f.pose is not None])
        nearest = int(gaps.argmin())
        if float(gaps[nearest]) > LARGEST_STEP * self._usual_step:
            return False
        self._position = nearest
        self._recording.clear()
        return True


def distance(pose: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference, in the codec's own units."""
    return (pose.float() - other.float()).abs().mean()
