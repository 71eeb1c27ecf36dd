"""The sockets that are served, of which those that have said nothing yet are bounded.

Belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession
from visavis.server.session import RealtimeSession

RETRY_AFTER_S = 5.0


class Connections:
    """The sockets of one server. max_pending: those at a time that were greeted and whose session
    neither is there nor is being opened; the line and the places bound the others."""

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._served: dict[RealtimeSession, None] = {}

    @property
    def pending(self) -> int:
        """Sockets that were greeted, and whose client has said nothing that counts yet."""
        return sum(connection.pending for connection in self._served)

    @property
    def opening(self) -> list[LiveSession]:
        """Sessions that wait for a place or for their avatar, oldest first."""
        return [connection.live for connection in self._served if connection.live.opening]

    def check_room(self) -> None:
        """Whether one socket more may be greeted. Raises ProtocolError `capacity`."""
        pending = self.pending
        if pending >= self._max_pending:
            raise ProtocolError(
                ErrorCode.CAPACITY,
                f"{pending} connections have not sent session.update yet, {self._max_pending} at "
                "most; try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    @contextmanager
    def serving(self, connection: RealtimeSession) -> Iterator[None]:
        """Count a socket until the block ends."""
        self._served[connection] = None
        try:
            yield
        finally:
            del self._served[connection]
