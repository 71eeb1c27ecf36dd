"""The last seconds of a session as the viewer saw and the model heard them, to go back into."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME

# More than a server can have made and not yet shown: what is in flight, what is ready, a chunk.
HISTORY_FRAMES = 96


class RewindError(ValueError):
    """A frame that is not remembered: not shown yet, or too long ago.

    `nearest` is the remembered one that is nearest to it; None while there is none.
    """

    def __init__(self, message: str, nearest: int | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame: its pose (`DecodedFrames.exact`) and the 16 kHz float32 [640] it was made for."""

    pose: Tensor
    heard: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HistoryState:
    """A copy; everything in it is shared and never written to."""

    before: NDArray[np.float32]
    moments: tuple[Moment, ...]
    end: int


class History:
    """At most `HISTORY_FRAMES` moments and the audio before them; `end` is the next index."""

    def __init__(self, past_samples: int) -> None:
        """`past_samples`: how far back the audio features reach."""
        self.end = 0
        self._before = np.zeros(past_samples, np.float32)
        self._moments: deque[Moment] = deque()

    @property
    def start(self) -> int:
        """Index of the earliest frame that is remembered."""
        return self.end - len(self._moments)

    def append(self, moment: Moment) -> None:
        """The next frame."""
        self._moments.append(moment)
        self.end += 1
        if len(self._moments) > HISTORY_FRAMES:
            oldest = self._moments.popleft()
            self._before = np.concatenate([self._before, oldest.heard])[-len(self._before) :]

    def cut(self, end: int) -> None:
        """Forget frames `end` and later."""
        while self.end > end:
            self._moments.pop()
            self.end -= 1

    def rewind(self, end: int) -> None:
        """Forget frames `end` and later, so that the one before is the last one seen.

        Raises:
            RewindError: there is no such frame, or it was too long ago.
        """
        if not self.start <= end <= self.end or (end == self.start and end > 0):
            raise RewindError(
                f"frame {end - 1} is not remembered, only {self.start}..{self.end - 1} are; "
                f"rewind by less than {HISTORY_FRAMES} frames",
                nearest=min(max(end - 1, self.start), self.end - 1) if self._moments else None,
            )
        self.cut(end)

    def poses(self, count: int) -> list[Tensor]:
        """Poses of the last `count` frames, fewer if fewer are remembered; the latest last."""
        return [m.pose for m in list(self._moments)[-count:]]

    def past(self) -> NDArray[np.float32]:
        """The last `past_samples` of the timeline."""
        reach = -(-len(self._before) // ENGINE_SAMPLES_PER_FRAME)
        recent = [m.heard for m in list(self._moments)[-reach:]]
        return np.concatenate([self._before, *recent])[-len(self._before) :]

    def save(self, end: int) -> HistoryState:
        """A copy that ends before frame `end`."""
        moments = tuple(self._moments)[: len(self._moments) - (self.end - end)]
        return HistoryState(self._before, moments, end)

    @classmethod
    def load(cls, state: HistoryState) -> History:
        history = cls(0)
        history._before = state.before
        history._moments = deque(state.moments)
        history.end = state.end
        return history
