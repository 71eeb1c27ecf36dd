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
    # What loops raise away from the main thread, and systems that have no such signals.
    elsewhere = contextlib.suppress(ValueError, RuntimeError)
    with elsewhere:
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
    finally:
        with elsewhere:
            loop.remove_signal_handler(signal.SIGINT)
    return not stopped
