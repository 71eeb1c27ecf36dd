"""Audio features of the chunk that comes next, made while the present one is.

They are a function of the sound before and of the new sound alone. Both are compared when the chunk
begins: after a rewind, another end of the utterance or another length, they are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.front_end import AudioFrontEnd, EarlyFrontEnd

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    past: Samples
    new: Samples
    take: Callable[[], NDArray[np.float32]]


class Foresight:
    """One session's view of a front end: one chunk ahead at most."""

    def __init__(self, front_end: AudioFrontEnd) -> None:
        self._front_end = front_end
        self._begun: _Begun | None = None
        self.hits = 0

    @property
    def possible(self) -> bool:
        """Whether the front end can begin early at all."""
        return isinstance(self._front_end, EarlyFrontEnd)

    def begin(self, past: Samples, now: Samples, upcoming: Samples) -> None:
        """A chunk of `now` is under way after `past`: `upcoming` may come next."""
        self.forget()
        if not isinstance(self._front_end, EarlyFrontEnd):
            return
        then = np.concatenate([past, now])[-len(past) :]
        take = self._front_end.begin(then, upcoming)
        if take is not None:
            self._begun = _Begun(then, upcoming, take)

    def features(self, past: Samples, new: Samples) -> NDArray[np.float32]:
        """`AudioFrontEnd.features`."""
        begun, self._begun = self._begun, None
        if (
            begun is not None
            and np.array_equal(begun.new, new)
            and np.array_equal(begun.past, past)
        ):
            self.hits += 1
            return begun.take()
        return self._front_end.features(past, new)

    def forget(self) -> None:
        """What was begun will not be asked for."""
        self._begun = None
