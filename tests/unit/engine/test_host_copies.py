"""Pictures come to the host in order, one batch after the next was ordered, and are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_model import noise, tiny_pipeline, tiny_session
from torch import Tensor

from visavis.engine.codec.base import DecodedFrames
from visavis.engine.host_copies import CopiesAtOnce, on_host, one_ahead
from visavis.engine.parallel.commands import CommandChannel
from visavis.engine.parallel.loss import GroupLostError, Loss
from visavis.engine.parallel.watchdog import StepWatch
from visavis.engine.parallel.watched_copies import WatchedCopies


class LateCopies:
    """Copies that arrive when they are waited for, and a diary of who did what."""

    ahead = True

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


class LostLookout:
    """Says that the group is whole until it is told otherwise."""

    loss: Loss | None = None

    def check(self) -> None:
        if self.loss is not None:
            raise GroupLostError(self.loss)


def led_channel() -> tuple[Any, LostLookout]:
    """A leader's channel whose followers nobody needs."""
    channel, lookout = CommandChannel.__new__(CommandChannel), LostLookout()
    channel.watch, channel.lookout = StepWatch(), lookout  # type: ignore[assignment]
    return channel, lookout


def test_a_group_copies_one_batch_ahead_as_well() -> None:
    copies, (channel, _) = LateCopies(), led_channel()
    watched = WatchedCopies(copies, channel)
    assert [int(p[0, 0, 0, 0]) for p, _ in on_host(batches(3), watched)] == [0, 1, 2]
    assert copies.diary == ["order 0", "order 1", "take 0", "order 2", "take 1", "take 2"]
    assert not WatchedCopies(CopiesAtOnce(), channel).ahead


def test_pictures_that_arrive_after_a_loss_do_not_count() -> None:
    copies, (channel, lookout) = LateCopies(), led_channel()
    pictures = on_host(batches(3), WatchedCopies(copies, channel))
    next(pictures)
    lookout.loss = Loss("died", 1, "gone")
    with pytest.raises(GroupLostError, match="rank 1 died"):
        next(pictures)
    assert "take 1" not in copies.diary


def test_a_group_lost_while_its_pictures_arrive_is_noticed() -> None:
    channel, lookout = led_channel()

    class Losing(CopiesAtOnce):
        def begin(self, pixels: Tensor) -> Callable[[], NDArray[np.uint8]]:
            def wait() -> NDArray[np.uint8]:
                lookout.loss = Loss("silent", 1, "stopped")
                return pixels.numpy()

            return wait

    with pytest.raises(GroupLostError, match="is silent"):
        next(on_host(batches(1), WatchedCopies(Losing(), channel)))
