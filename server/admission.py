"""Who gets a place: capacity, the list of live sessions, draining."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost

RETRY_AFTER_S = 5.0
MIN_MEASURED = 3


class Drainable(Protocol):
    """What draining needs of a session."""

    def drain(self, deadline_s: float) -> None:
        """Come to an end within `deadline_s` seconds."""
        ...


class Admission:
    """The live sessions of one server."""

    def __init__(self, host: ModelHost, metrics: Metrics) -> None:
        self.draining = False
        self._host = host
        self._metrics = metrics
        self._sessions: set[Drainable] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._first_frames_s: deque[float] = deque(maxlen=256)

    @property
    def active(self) -> int:
        """Sessions that hold a place."""
        return len(self._sessions)

    def check(self) -> None:
        """Raises ProtocolError `server_draining`, `model_loading` or `capacity`."""
        if self.draining:
            raise ProtocolError(
                ErrorCode.SERVER_DRAINING,
                "the server is shutting down; connect again",
                retry_after_s=RETRY_AFTER_S,
            )
        _ = self._host.engine
        if self.active >= self._host.max_sessions:
            raise ProtocolError(
                ErrorCode.CAPACITY,
                f"{self.active} of {self._host.max_sessions} sessions are in use; try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    @contextmanager
    def place(self, session: Drainable) -> Iterator[None]:
        """Hold a place for `session`. Raises as `check` does."""
        self.check()
        self._sessions.add(session)
        self._empty.clear()
        self._metrics.sessions_active.set(self.active)
        try:
            yield
        finally:
            self._sessions.discard(session)
            self._metrics.sessions_active.set(self.active)
            if not self._sessions:
                self._empty.set()

    def observe_first_frame(self, seconds: float) -> None:
        """A response's first frame was sent so long after its first audio came."""
        self._metrics.first_frame.observe(seconds)
        self._first_frames_s.append(seconds)

    @property
    def first_frame_ms_p50(self) -> float | None:
        """Median over the last responses; None until there were some."""
        if len(self._first_frames_s) < MIN_MEASURED:
            return None
        return round(statistics.median(self._first_frames_s) * 1000, 1)

    async def wait_empty(self) -> None:
        """Wait until no session holds a place."""
        await self._empty.wait()

    async def drain(self, timeout_s: float) -> None:
        """Admit nobody, ask all to finish, and wait for them, `timeout_s` at most."""
        self.draining = True
        self._metrics.set_engine_state("draining")
        for session in list(self._sessions):
            session.drain(timeout_s)
        try:
            # Sessions close themselves at the deadline; the second is for their close frames.
            async with asyncio.timeout(timeout_s + 1.0):
                await self.wait_empty()
        except TimeoutError:
            pass
