"""The sending end of one socket: nothing takes longer than a client may, and all is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.websockets import WebSocket, WebSocketDisconnect

from visavis.server.errors import CLOSE_CODES
from visavis.server.metrics import Metrics

# How long the last words to a client that does not read may take, and the close.
FAREWELL_S = 1.0
CLOSE_S = 1.0
# What a socket says whose client is gone; Starlette says RuntimeError for one that is closed.
GONE = (WebSocketDisconnect, RuntimeError, OSError)


class Wire:
    """Sends to one client, one message after the other.

    slow_client_s: how long a message may take; then TimeoutError. A client that is gone: `GONE`.
    """

    def __init__(self, socket: WebSocket, metrics: Metrics, *, slow_client_s: float) -> None:
        self._socket = socket
        self._metrics = metrics
        self._slow_client_s = slow_client_s
        self._unsent: str | None = None

    async def send_text(self, text: str) -> None:
        """An event."""
        self._unsent = text
        async with asyncio.timeout(self._slow_client_s):
            await self._socket.send_text(text)
        self._unsent = None
        self._metrics.ws_bytes.labels(dir="out").inc(len(text))

    async def send_bytes(self, message: bytes) -> None:
        """A media message."""
        async with asyncio.timeout(self._slow_client_s):
            await self._socket.send_bytes(message)
        self._metrics.ws_bytes.labels(dir="out").inc(len(message))

    async def say_goodbye(self, texts: Iterator[str]) -> None:
        """The event that was not read in time and `texts`, should the client read again; raises
        nothing if not."""
        with contextlib.suppress(TimeoutError, *GONE):
            async with asyncio.timeout(FAREWELL_S):
                if self._unsent is not None:
                    await self._socket.send_text(self._unsent)
                for text in texts:
                    await self._socket.send_text(text)

    async def close(self, code: int, reason: str) -> None:
        """Close, or leave it be if that takes too long."""
        assert code in CLOSE_CODES
        with contextlib.suppress(TimeoutError, *GONE):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code, reason)
