"""Coming back to a session whose connection was lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from visavis_client.errors import AvatarError, ConnectionFailedError, TimedOutError
from visavis_client.events import parse_event
from visavis_client.protocol import ErrorEvent, SessionResume, SessionResumed
from visavis_client.retry import Retry, worth_retrying
from visavis_client.server_errors import EngineRestartingError, server_error

# Going away, broken off or closed without a code, lost, restarting; all other codes are the end.
RESUMABLE = frozenset({1001, 1005, 1006, 1012})
ATTEMPT_S = 5.0
WAITS = Retry(first_s=0.1, longest_s=2.0)
# The server's own guess of when to come back is trusted for this share of the time to live: it may
# be ready at once, and holds the session no longer than that from then on.
TRUSTED_SHARE = 0.25


class Reconnector:
    """Tries until the session's time to live is over, with growing waits."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[ClientConnection]],
        *,
        waits: Retry = WAITS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`dial` opens a socket to the same address; `clock` is monotonic, in seconds; `sleep`
        waits so many of them."""
        self._dial = dial
        self._waits = waits
        self._clock = clock
        self._sleep = sleep

    def may_resume(self, close_code: int | None) -> bool:
        """Whether a socket that was closed so belongs to a session that can go on."""
        return close_code is None or close_code in RESUMABLE

    async def resume(
        self, request: SessionResume, ttl_s: float
    ) -> tuple[ClientConnection, SessionResumed]:
        """A socket on which the session goes on, and the server's word about it.

        Raises the last error: ResumeExpiredError and the like at once, others after `ttl_s`. While
        the server says that its engine restarts, that time has not begun.
        """
        deadline_s = self._clock() + ttl_s
        waits_s = self._waits.waits_s()
        wait_s = next(waits_s)
        while True:
            await self._sleep(wait_s)
            try:
                return await self._attempt(request)
            except AvatarError as error:
                if not worth_retrying(error):
                    raise
                asked_s = getattr(error, "retry_after_s", None) or 0.0
                wait_s = max(next(waits_s), min(asked_s, TRUSTED_SHARE * ttl_s))
                if isinstance(error, EngineRestartingError):
                    deadline_s = self._clock() + wait_s + ttl_s
                elif self._clock() + wait_s > deadline_s:
                    raise

    async def _attempt(self, request: SessionResume) -> tuple[ClientConnection, SessionResumed]:
        socket = await self._dial()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                # Not after the greeting: a full server has none for a new session.
                # One that is shutting down may have closed already; its reason waits to be read.
                with suppress(ConnectionClosed):
                    await socket.send(json.dumps(request.to_json()))
                return socket, await _resumed(socket)
        except BaseException as error:
            await socket.close()
            if isinstance(error, TimeoutError) and not isinstance(error, TimedOutError):
                raise TimedOutError(
                    f"no session.resumed came within {ATTEMPT_S:g} s", remedy="try again"
                ) from error
            raise


async def _resumed(socket: ClientConnection) -> SessionResumed:
    try:
        async for message in socket:
            event = parse_event(message) if isinstance(message, str) else None
            if isinstance(event, SessionResumed):
                return event
            if isinstance(event, ErrorEvent):
                raise server_error(event.error)
    except ConnectionClosed:
        pass
    raise ConnectionFailedError("the server closed the socket again", remedy="try again later")
