"""Ctrl-C in a long measurement ends it and not its report."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine


async def runs_to_its_end(work: Coroutine[object, object, None]) -> bool:
    """Await `work`; False when Ctrl-C (SIGINT) cancelled it. Raises what it raises.

    Outside of the main thread signals arrive elsewhere, and it just runs.
    """
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    loop = asyncio.get_running_loop()
    # ValueError and RuntimeError: not the main thread; NotImplementedError: not a Unix.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            task.cancel()
            raise
    finally:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
    return not stopped
