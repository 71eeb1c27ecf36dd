"""Telling the server what was played: the credit of its flow control."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from visavis_client.errors import SessionClosedError
from visavis_client.protocol import PlaybackUpdate

EVERY_S = 0.4


class PlaybackReporter:
    """Sends `playback.update` while the position moves, and once a second while it does not.

    position: the update to send now, None before there is anything to report.
    """

    def __init__(
        self,
        position: Callable[[], PlaybackUpdate | None],
        tell: Callable[[PlaybackUpdate], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._position = position
        self._tell = tell
        self._clock = clock
        self._reported_us: int | None = None
        self._reported_s = 0.0

    async def run(self) -> None:
        """Report until the session is over."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.report()
            except SessionClosedError:
                return

    async def report(self) -> None:
        """Report now, if there is something new to say. Raises SessionClosedError."""
        update = self._position()
        now_s = self._clock()
        if update is None:
            return
        if update.pts_us == self._reported_us and now_s - self._reported_s < 1.0:
            return
        self._reported_us, self._reported_s = update.pts_us, now_s
        await self._tell(update)
