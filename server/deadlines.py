"""When a session has to end: idle, too old, or the server stops. Announced first. No I/O."""

from __future__ import annotations

from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import SessionExpiring
from visavis.server.events.base import ExpiryReason

# How long before its end a session is told, at most; short limits are told at a fifth.
WARN_S = 30.0
# An end that has come nearer by more than this since it was told is told again.
SOONER_S = 2.0


def server_draining() -> ProtocolError:
    """What a session that ends with its server is told."""
    return ProtocolError(
        ErrorCode.SERVER_DRAINING,
        "the server is shutting down; connect again",
        retry_after_s=1.0,
    )


class Deadlines:
    """The limits of one session on the monotonic clock. It may last as long as it may from `begin`
    on."""

    def __init__(self, config: ServerConfig, now_s: float) -> None:
        self.close_when_done = False
        self._config = config
        self._end_s = float("inf")
        self._active_s = now_s
        self._drain_s: float | None = None
        self._bound: tuple[float, ProtocolError] | None = None
        self._warned_end_s: float | None = None
        self._warned_idle = False

    def begin(self, now_s: float) -> None:
        """The session has its place since `now_s`: that is how old it is."""
        self._end_s = now_s + self._config.max_session_s

    def active(self, now_s: float) -> None:
        """The client did something, or the avatar speaks or is about to."""
        self._active_s = now_s
        self._warned_idle = False

    def resumed(self, now_s: float) -> None:
        """The client came back, and may never have heard what was announced before."""
        self.active(now_s)
        self._warned_end_s = None

    def bound(self, end_s: float, error: ProtocolError) -> None:
        """The session ends with `error` at `end_s`, unless that is told anew, or before."""
        self._bound = (end_s, error)

    def drain(self, by_s: float) -> None:
        """The server stops at `by_s`."""
        self._drain_s = by_s

    @property
    def draining(self) -> bool:
        """Whether the server stops."""
        return self._drain_s is not None

    def due(
        self, now_s: float, *, busy: bool
    ) -> tuple[SessionExpiring | None, ProtocolError | None]:
        """What to announce and what ends the session; `busy` while a drain has to wait for what is
        being said."""
        if self._drain_s is not None and (not busy or now_s >= self._drain_s):
            return None, server_draining()
        end_s, error = self._end
        if now_s >= end_s:
            return _expiring("max_duration", 0.0) if self._is_news(end_s) else None, error
        idle_end_s = self._active_s + self._config.idle_timeout_s
        if now_s >= idle_end_s:
            limit = self._config.idle_timeout_s
            error = ProtocolError(
                ErrorCode.IDLE_TIMEOUT, f"nothing was sent for {limit:g} s; open a new session"
            )
            return None if self._warned_idle else _expiring("idle", 0.0), error
        return self._warning(now_s, idle_end_s), None

    @property
    def _end(self) -> tuple[float, ProtocolError]:
        """When the session is to end, whatever it does, and with what."""
        limit = self._config.max_session_s
        error = ProtocolError(
            ErrorCode.MAX_DURATION, f"the session has reached its {limit:g} s; open a new one"
        )
        own = (self._end_s, error)
        return own if self._bound is None else min(own, self._bound, key=lambda end: end[0])

    def _is_news(self, end_s: float) -> bool:
        return self._warned_end_s is None or end_s < self._warned_end_s - SOONER_S

    def _warning(self, now_s: float, idle_end_s: float) -> SessionExpiring | None:
        end_s, _ = self._end
        early_s = min(WARN_S, self._config.max_session_s / 5) if end_s == self._end_s else WARN_S
        if end_s - now_s > early_s:
            self._warned_end_s = None  # what was told of has gone away
        elif self._is_news(end_s):
            self._warned_end_s = end_s
            return _expiring("max_duration", end_s - now_s)
        idle_left_s = idle_end_s - now_s
        if not self._warned_idle and idle_left_s <= min(WARN_S, self._config.idle_timeout_s / 5):
            self._warned_idle = True
            return _expiring("idle", idle_left_s)
        return None


def _expiring(reason: ExpiryReason, left_s: float) -> SessionExpiring:
    return SessionExpiring(reason=reason, deadline_s=round(left_s, 3))
