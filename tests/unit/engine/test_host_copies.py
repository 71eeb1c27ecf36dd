"""Pictures come to the host in order, one batch after the next was ordered, and are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_model import noise, tiny_pipeline, tiny_session
from torch import Tensor

from visavis.engine.codec.base import DecodedFrames
from visavis.engine.host_copies import one_ahead


class LateCopies:
    """Copies that arrive when they are waited for, and a diary of who did what."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self._count = 0

    def begin(self, pixels: Tensor) -> Callable[[], NDArray[np.uint8]]:
        number, self._count = self._count, self._count + 1
        self.diary.append(f"order {number}")

        def wait() -> NDArray[np.uint8]:
            self.diary.append(f"take {number}")
            return pixels.numpy()

        return wait


def batches(count: int) -> Iterator[DecodedFrames]:
    for i in range(count):
        yield DecodedFrames(torch.full((2, 4, 4, 3), i, dtype=torch.uint8), torch.full((2, 1), i))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_comes_once_and_in_order(count: int) -> None:
    found = list(one_ahead(batches(count), LateCopies()))
    assert [(int(p[0, 0, 0, 0]), int(e[0, 0])) for p, e in found] == [(i, i) for i in range(count)]


def test_the_next_batch_is_ordered_before_the_last_is_taken() -> None:
    copies = LateCopies()
    for pictures, _ in one_ahead(batches(3), copies):
        copies.diary.append(f"encode {pictures[0, 0, 0, 0]}")
    assert copies.diary == [
        "order 0",
        "order 1",
        "take 0",
        "encode 0",
        "order 2",
        "take 1",
        "encode 1",
        "take 2",
        "encode 2",
    ]


def test_a_session_gives_the_same_frames() -> None:
    plain, ahead = tiny_pipeline(), tiny_pipeline()
    ahead.copies = LateCopies()
    found = []
    for pipeline in (plain, ahead):
        session = tiny_session(pipeline)
        session.push_audio(noise(30_000))
        session.commit()
        frames = []
        while session.next_chunk() is not None:
            frames += list(session.generate())
        found.append(frames)
    assert len(found[0]) == len(found[1]) > 28
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.index, one.last) == (other.index, other.last)
