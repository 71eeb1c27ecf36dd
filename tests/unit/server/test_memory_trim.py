"""Freed memory goes back to the system: after sessions, and not too often."""

import asyncio
import gc
import platform
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
from virtual_engine import VirtualLoop

from visavis.server.admission import Admission
from visavis.server.memory_trim import MemoryTrimmer, release_freed, settle
from visavis.server.metrics import Metrics


class InlineLoop(VirtualLoop):
    """What is handed to a thread happens at once."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        done = self.create_future()
        done.set_result(func(*args))
        return done


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=InlineLoop) as runner:
        runner.run(main)


def test_it_happens_at_once_and_then_once_a_minute() -> None:
    async def main() -> None:
        loop, times = asyncio.get_running_loop(), []
        begin_s = loop.time()
        trimmer = MemoryTrimmer(release=lambda: times.append(loop.time() - begin_s), every_s=60)
        for _ in range(3):
            trimmer.ask()
        await asyncio.sleep(10)
        assert times == [0]
        trimmer.ask()
        trimmer.ask()
        await asyncio.sleep(200)
        assert times == [0, 60]
        trimmer.ask()
        await asyncio.sleep(1)
        assert times == [0, 60, 210]

    run(main())


class Place:
    def drain(self, deadline_s: float) -> None:
        raise AssertionError("nobody drains here")


class OnePlace:
    """The host of an engine with room for one."""

    max_sessions, max_queued = 1, 0

    class load:
        enter = leave = staticmethod(lambda *_: None)

    def check_computes(self) -> None:
        pass

    def places(self, picture_s: float | None = None) -> int:
        return 1


def test_a_session_that_leaves_asks_for_it() -> None:
    async def main() -> None:
        released: list[bool] = []
        trimmer = MemoryTrimmer(release=lambda: released.append(True))
        admission = Admission(OnePlace(), Metrics(), trimmer)  # type: ignore[arg-type]
        leave = await admission.join(Place(), lambda *_: None)
        await asyncio.sleep(1)
        assert not released
        leave()
        await asyncio.sleep(1)
        assert released == [True]

    run(main())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_leaves_the_process() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1])

    kept: list[bytes | None] = [bytes(60_000) for _ in range(2000)]  # below malloc's own mmap
    full = resident()
    kept[:-1] = [None] * (len(kept) - 1)  # the last one keeps the heap's top where it is
    release_freed()
    assert kept[-1] is not None
    assert (full - resident()) * 4096 > 80e6


class Node:
    """Part of a cycle."""

    me: object = None


def test_what_is_settled_is_not_looked_at_again_and_what_comes_later_is() -> None:
    old = Node()
    old.me = old
    settle()
    try:
        new = Node()
        new.me = new
        frozen, collected = weakref.ref(old), weakref.ref(new)
        del old, new
        gc.collect()
        assert frozen() is not None
        assert collected() is None
    finally:
        gc.unfreeze()
        gc.collect()
    assert frozen() is None
