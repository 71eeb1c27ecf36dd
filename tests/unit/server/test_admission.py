"""Places and the line before them: never too many, first come first served, nobody lost in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from visavis.engine.costs import ChunkCosts
from visavis.server.admission import Admission
from visavis.server.engine_load import LOAD_TARGET, EngineLoad
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics
from visavis.server.picture_costs import PictureCosts
from visavis.server.waiting_line import WaitingLine


class Session:
    """Something that is asked to end."""

    def __init__(self) -> None:
        self.drained_s: float | None = None

    def drain(self, deadline_s: float) -> None:
        self.drained_s = deadline_s


class Host:
    """So many places, whoever comes."""

    def __init__(self, max_sessions: int, max_queued: int) -> None:
        self.max_sessions, self.max_queued = max_sessions, max_queued
        self.load = EngineLoad(lambda: None, num_steps=4)

    def places(self, picture_s: float | None) -> int:
        return self.max_sessions

    def check_computes(self) -> None:
        """It always does."""


class Line:
    """An admission with few places, and what each who waits was told."""

    def __init__(self, places: int = 1, queued: int = 3) -> None:
        self.host: Any = Host(places, queued)
        self.admission = Admission(self.host, Metrics())
        self.told: dict[str, list[int]] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}

    async def come(self, name: str, picture_s: float | None = None) -> asyncio.Task[Any]:
        told = self.told.setdefault(name, [])
        joining = self.admission.join(
            Session(), lambda position, eta_s: told.append(position), picture_s
        )
        self.tasks[name] = asyncio.create_task(joining)
        await self.settle()
        return self.tasks[name]

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def inside(self) -> list[str]:
        return [name for name, task in self.tasks.items() if task.done() and not task.cancelled()]

    async def go(self, name: str) -> None:
        self.tasks.pop(name).result()()
        await self.settle()

    async def give_up(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])
        await self.settle()


async def test_those_who_wait_come_in_order_and_know_their_place() -> None:
    line = Line()
    for name in "abc":
        await line.come(name)
    assert line.inside() == ["a"]
    assert line.told == {"a": [], "b": [1], "c": [2]}
    assert (line.admission.active, line.admission.queued) == (1, 2)
    await line.go("a")
    assert line.inside() == ["b"]
    assert line.told["c"] == [2, 1]
    await line.go("b")
    await line.go("c")
    assert (line.admission.active, line.admission.queued) == (0, 0)


async def test_one_who_gives_up_leaves_no_hole() -> None:
    line = Line()
    for name in "abcd":
        await line.come(name)
    await line.give_up("b")
    assert line.told["c"][-1] == 1
    await line.go("a")
    assert line.inside() == ["c"]
    assert line.admission.queued == 1


async def test_one_who_goes_just_as_it_is_called_passes_the_place_on() -> None:
    line = Line()
    for name in "abc":
        await line.come(name)
    leave = line.tasks.pop("a").result()
    leave()  # b is called, and does not run any more
    await line.give_up("b")
    await line.settle()
    async with asyncio.timeout(3):
        await line.tasks["c"]
    assert line.admission.active == 1


async def test_a_full_line_refuses_and_says_when_to_come_again() -> None:
    line = Line(queued=1)
    for name in "ab":
        await line.come(name)
    with pytest.raises(ProtocolError) as caught:
        await line.admission.join(Session(), lambda position, eta_s: None)
    assert caught.value.code is ErrorCode.CAPACITY
    assert caught.value.retry_after_s is not None
    await line.give_up("b")


async def test_nobody_passes_those_who_wait() -> None:
    line = Line()
    for name in "ab":
        await line.come(name)
    line.tasks.pop("a").result()()  # the place is free, and b does not know yet that it is called
    assert line.admission.eta_s != 0.0
    await line.come("c")
    assert line.told["c"] == [1]
    assert line.inside() == ["b"]
    await line.go("b")
    assert line.inside() == ["c"]


async def test_draining_sends_those_who_wait_away() -> None:
    line = Line()
    for name in "ab":
        await line.come(name)
    draining = asyncio.create_task(line.admission.drain(5.0))
    await line.settle()
    error = line.tasks["b"].exception()
    assert isinstance(error, ProtocolError)
    assert error.code is ErrorCode.SERVER_DRAINING
    await line.go("a")
    await draining
    assert line.admission.queued == 0


async def test_capacity_that_grows_lets_the_next_in() -> None:
    line = Line()
    for name in "ab":
        await line.come(name)
    line.host.max_sessions = 2
    async with asyncio.timeout(5):
        await line.tasks["b"]
    assert line.admission.active == 2


class MeasuredHost(Host):
    """As many places as an engine that takes 0.08 of real time for a session has."""

    def __init__(self, pictures: PictureCosts) -> None:
        super().__init__(0, 8)
        costs = ChunkCosts(
            steps_s={length: {1: 0.008} for length in (9, 13, 17, 33)},
            prepare_s=0.006,
            first_frame_s=0.0,
            frame_s=0.0,
        )
        self.load = EngineLoad(lambda: costs, num_steps=4, pictures=pictures)

    def places(self, picture_s: float | None) -> int:
        return self.load.places(picture_s)


async def test_nobody_is_admitted_whose_pictures_would_make_others_stutter() -> None:
    small, large = (256, 256), (512, 512)
    # A tenth of real time for the pictures of a small session, two for those of a large one.
    pictures = PictureCosts({"h264": {small: 0.004, large: 0.008}, "jpeg": {}}, small)
    line = Line()
    line.admission = Admission(host := MeasuredHost(pictures), Metrics())  # type: ignore[arg-type]
    small_s, large_s = (
        host.load.picture_s("h264", small, 25),
        host.load.picture_s("fmp4", large, 25),
    )
    assert host.load.capacity == host.places(small_s) == 4
    assert host.places(large_s) == 2
    assert host.places(host.load.picture_s("none", large, 25)) == 10

    for name in "ab":
        await line.come(name, large_s)
    # 0.56 are taken: one more small one, not a large one, and then nobody.
    assert (host.places(large_s), host.places(small_s)) == (2, 3)
    for name in "cde":
        await line.come(name, small_s)
    assert line.inside() == ["a", "b", "c"]
    host.load.speaking = 3
    assert host.load.load() <= LOAD_TARGET
    await line.go("c")
    assert line.inside() == ["a", "b", "d"]
    await line.go("a")
    assert line.inside() == ["b", "d", "e"]
    for name in "bde":
        await line.go(name)
    assert host.load.capacity == 4


@pytest.mark.parametrize(
    ("position", "ages", "expected"),
    [(1, [10.0], 50.0), (2, [10.0], 110.0), (1, [10.0, 40.0], 20.0), (2, [10.0, 40.0], 50.0)],
)
def test_the_wait_is_estimated_from_how_long_sessions_last(
    position: int, ages: list[float], expected: float
) -> None:
    line = WaitingLine(5)
    assert line.eta_s(position, ages, len(ages)) is None
    for length_s in (30.0, 60.0, 600.0):
        line.session_ended(length_s)
    assert line.eta_s(position, ages, len(ages)) == expected
