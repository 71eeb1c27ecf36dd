"""When a session has to end: idle, too old, or the server stops. Announced first. No I/O."""

from __future__ import annotations

from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import SessionExpiring

# How long before its end a session is told, at most; short limits are told at a fifth.
WARN_S = 30.0


def server_draining() -> ProtocolError:
    """What a session that ends with its server is told."""
    return ProtocolError(
        ErrorCode.SERVER_DRAINING,
        "the server is shutting down; connect again",
        retry_after_s=1.0,
    )


class Deadlines:
    """The limits of one session on the monotonic clock."""

    def __init__(self, config: ServerConfig, now_s: float) -> None:
        self.close_when_done = False
        self._config = config
        self._end_s = now_s + config.max_session_s
        self._active_s = now_s
        self._drain_s: float | None = None
        self._warned_end = False
        self._warned_idle = False

    def active(self, now_s: float) -> None:
        """The client did something, or the avatar speaks."""
        self._active_s = now_s
        self._warned_idle = False

    def drain(self, by_s: float) -> None:
        """The server stops at `by_s`."""
        self._drain_s = by_s

    def due(
        self, now_s: float, *, busy: bool
    ) -> tuple[SessionExpiring | None, ProtocolError | None]:
        """What to announce and what ends the session; `busy` while a response is open."""
        if self._drain_s is not None and (not busy or now_s >= self._drain_s):
            return None, server_draining()
        if now_s >= self._end_s:
            limit = self._config.max_session_s
            return None, ProtocolError(
                ErrorCode.MAX_DURATION, f"the session has reached its {limit:g} s; open a new one"
            )
        idle_end_s = self._active_s + self._config.idle_timeout_s
        if now_s >= idle_end_s:
            limit = self._config.idle_timeout_s
            return None, ProtocolError(
                ErrorCode.IDLE_TIMEOUT, f"nothing was sent for {limit:g} s; open a new session"
            )
        return self._warning(now_s, idle_end_s), None

    def _warning(self, now_s: float, idle_end_s: float) -> SessionExpiring | None:
        end_left_s, idle_left_s = self._end_s - now_s, idle_end_s - now_s
        if not self._warned_end and end_left_s <= min(WARN_S, self._config.max_session_s / 5):
            self._warned_end = True
            return SessionExpiring(reason="max_duration", deadline_s=round(end_left_s, 3))
        if not self._warned_idle and idle_left_s <= min(WARN_S, self._config.idle_timeout_s / 5):
            self._warned_idle = True
            return SessionExpiring(reason="idle", deadline_s=round(idle_left_s, 3))
        return None
