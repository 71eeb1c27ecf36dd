"""What a session knows of whoever opened it and of its quota, and of the socket that carries it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from visavis.server.errors import ProtocolError


class Caller(Protocol):
    """Who opens a session, as authentication knows it."""

    @property
    def name(self) -> str: ...

    @property
    def max_session_s(self) -> float | None: ...

    def check_open(self, avatar_id: str | None) -> None:
        """Raises ProtocolError when the caller may not show that avatar, or open anything."""
        ...

    def check_resume(self, avatar_id: str | None) -> None:
        """Raises ProtocolError when the caller may not go on with a session of its own that shows
        that avatar."""
        ...


class Lease(Protocol):
    """What a session holds of its caller's quota."""

    def left_s(self) -> float | None:
        """For how long it may go on as things are; None for ever."""
        ...

    def used_up(self) -> ProtocolError:
        """What its client is told when nothing is left."""
        ...


class Quota(Protocol):
    """How much a caller may have of sessions."""

    def wait(self) -> AbstractContextManager[None]:
        """Count a session while it waits for a place. Raises ProtocolError `quota_exceeded`."""
        ...

    def lease(self) -> AbstractContextManager[Lease]:
        """Count a session while it holds one. Raises ProtocolError `quota_exceeded`."""
        ...


class Connection(Protocol):
    """The socket that carries a session now."""

    async def dismiss(self) -> None:
        """Say that a newer connection took over, and close."""
        ...
