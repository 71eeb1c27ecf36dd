"""What a session knows of whoever opened it, and of the socket that carries it now."""

from __future__ import annotations

from typing import Protocol


class Caller(Protocol):
    """Who opens a session, as authentication knows it."""

    @property
    def name(self) -> str: ...

    @property
    def max_session_s(self) -> float | None: ...

    def check_open(self, avatar_id: str | None) -> None:
        """Raises ProtocolError when the caller may not show that avatar, or open anything."""
        ...


class Connection(Protocol):
    """The socket that carries a session now."""

    async def dismiss(self) -> None:
        """Say that a newer connection took over, and close."""
        ...
