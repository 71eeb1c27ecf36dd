"""The quota of one caller, as a session asks for it: first in the line, then with a place.

Belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal
from visavis.server.quotas import RETRY_AFTER_S, TOKEN_SESSIONS, Lease, Quotas


class LineShares:
    """Whose sessions wait for a place: as many of a key or a token as may live at a time, for no
    caller shall fill the line alone."""

    def __init__(self) -> None:
        self._waiting: list[Principal] = []

    @contextmanager
    def wait(self, principal: Principal) -> Iterator[None]:
        """Count one more until the block ends. Raises ProtocolError `quota_exceeded`."""
        key = sum(other.name == principal.name for other in self._waiting)
        if principal.max_sessions is not None and key >= principal.max_sessions:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{key} sessions of {principal.name!r} wait for a place, {principal.max_sessions} "
                "at most; let one of them come first",
                retry_after_s=RETRY_AFTER_S,
            )
        token = sum(other.token_id == principal.token_id for other in self._waiting)
        if principal.token_id is not None and token >= TOKEN_SESSIONS:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{token} sessions of this client token wait for a place already; get another "
                "token for another viewer",
                retry_after_s=RETRY_AFTER_S,
            )
        self._waiting.append(principal)
        try:
            yield
        finally:
            self._waiting.remove(principal)


class CallersQuota:
    """What one caller may have."""

    def __init__(self, quotas: Quotas, line: LineShares, principal: Principal) -> None:
        self._quotas = quotas
        self._line = line
        self._principal = principal

    def wait(self) -> AbstractContextManager[None]:
        """Count a session while it waits for a place: it uses no minutes, and is none of those that
        live. Raises ProtocolError `quota_exceeded`, also for what `lease` would refuse now."""
        self._quotas.check(self._principal)
        return self._line.wait(self._principal)

    def lease(self) -> AbstractContextManager[Lease]:
        """As `Quotas.lease`."""
        return self._quotas.lease(self._principal)
