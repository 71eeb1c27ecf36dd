"""Messages that were read from a socket and wait to be handled, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# Enough for an utterance that is sent while its session opens. Beyond it TCP holds the client, or,
# while a session opens, messages are refused.
MAX_BYTES = 4 << 20


class Inbox:
    """A queue of Starlette's receive messages. One message always has room."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[Any] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._closed = False
        self._refuses = False

    async def put(self, message: Any) -> bool:
        """Add a message; waits while there is no room. False when it was not taken, for nothing is
        waited for in `refusing`."""
        size = message_size(message)

        def fits() -> bool:
            return not self._bytes or self._bytes + size <= self._max_bytes

        async with self._changed:
            await self._changed.wait_for(lambda: fits() or self._refuses)
            if not fits():
                return False
            self._messages.append(message)
            self._bytes += size
            self._changed.notify_all()
        return True

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """While nothing is taken out for long: who puts in must not wait, to see what happens to
        the socket meanwhile."""
        await self._refuse(True)
        try:
            yield
        finally:
            await self._refuse(False)

    async def _refuse(self, refuses: bool) -> None:
        async with self._changed:
            self._refuses = refuses
            self._changed.notify_all()

    async def close(self) -> None:
        """No more will come; `get` gives what is left and then None."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def get(self) -> Any | None:
        """The oldest message; None after the last one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._closed)
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._bytes -= message_size(message)
            self._changed.notify_all()
            return message


def message_size(message: Any) -> int:
    """Bytes of a receive message's payload."""
    text, data = message.get("text"), message.get("bytes")
    if text is not None:
        # ASCII needs no encoding to be counted.
        return len(text) if text.isascii() else len(text.encode())
    return len(data or b"")
