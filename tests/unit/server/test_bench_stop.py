"""Ctrl-C ends the work, and what was measured is told."""

from __future__ import annotations

import asyncio
import signal

import pytest

from visavis.server.bench_stop import runs_to_its_end


async def test_ctrl_c_cancels_the_work_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGINT)
    cleaned: list[bool] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    async with asyncio.timeout(10):
        assert not await runs_to_its_end(work())
    assert cleaned == [True]
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()
    # A second one is nobody's to catch.
    assert signal.getsignal(signal.SIGINT) in (before, signal.default_int_handler)


async def test_work_that_ends_by_itself() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    assert await runs_to_its_end(work())


async def test_work_that_fails() -> None:
    async def work() -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await runs_to_its_end(work())


async def test_who_is_cancelled_takes_the_work_along() -> None:
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    task = asyncio.create_task(runs_to_its_end(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]
