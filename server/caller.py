"""What a session knows of whoever opened it and of its quota, and of the socket that carries it."""

from __future__ import annotations

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


class Lease(Protocol):
    """What a session holds of its caller's quota."""

    def left_s(self) -> float | None:
        """For how long it may go on as things are; None for ever."""
        ...

    def used_up(self) -> ProtocolError:
        """What its client is told when nothing is left."""
        ...


class Connection(Protocol):
    """The socket that carries a session now."""

    async def dismiss(self) -> None:
        """Say that a newer connection took over, and close."""
        ...
