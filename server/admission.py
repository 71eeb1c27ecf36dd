"""Who gets a place: capacity, the waiting line, the list of live sessions, draining."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.memory_trim import MemoryTrimmer
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.waiting_line import OnQueued, Ticket, WaitingLine

RETRY_AFTER_S = 5.0
MIN_MEASURED = 3
# How often those who wait are told what has changed, and the capacity is looked at again.
TELL_EVERY_S = 1.0


class Drainable(Protocol):
    """What draining needs of a session."""

    def drain(self, deadline_s: float) -> None:
        """Come to an end within `deadline_s` seconds."""
        ...


class Admission:
    """The live sessions of one server."""

    def __init__(
        self, host: ModelHost, metrics: Metrics, trimmer: MemoryTrimmer | None = None
    ) -> None:
        """`trimmer` is asked whenever a session leaves."""
        self.draining = False
        self._trimmer = trimmer
        self._host = host
        self._metrics = metrics
        self._sessions: dict[Drainable, float] = {}
        self._called = 0  # whose turn it is, and who did not take the place yet
        self._line = WaitingLine(host.max_queued)
        self._empty = asyncio.Event()
        self._empty.set()
        self._first_frames_s: deque[float] = deque(maxlen=256)

    @property
    def active(self) -> int:
        """Sessions that hold a place."""
        return len(self._sessions)

    def check_open(self) -> None:
        """Whether connections are served at all; a full server can still resume sessions.

        Raises ProtocolError `server_draining` or `model_loading`.
        """
        if self.draining:
            raise ProtocolError(
                ErrorCode.SERVER_DRAINING,
                "the server is shutting down; connect again",
                retry_after_s=RETRY_AFTER_S,
            )
        self._host.check_computes()

    @property
    def sessions(self) -> list[Drainable]:
        """Those that hold a place."""
        return list(self._sessions)

    @property
    def queued(self) -> int:
        """Sessions that wait for a place."""
        return len(self._line)

    @property
    def eta_s(self) -> float | None:
        """About how long one who came now would wait; 0 with room, None when nobody can tell."""
        if self._has_room():
            return 0.0
        return self._line.eta_s(self.queued + 1, self._ages_s(), self._host.max_sessions)

    def _has_room(self, picture_s: float | None = None) -> bool:
        return not self._line and self._fits(picture_s)

    def _fits(self, picture_s: float | None) -> bool:
        return self.active + self._called < self._host.places(picture_s)

    def _full(self) -> ProtocolError:
        eta_s = self.eta_s
        return ProtocolError(
            ErrorCode.CAPACITY,
            f"{self.active} of {self._host.max_sessions} sessions are in use and {self.queued} "
            "wait; try again later",
            retry_after_s=RETRY_AFTER_S if eta_s is None else max(1.0, eta_s),
        )

    async def join(
        self, session: Drainable, on_queued: OnQueued, picture_s: float | None = None
    ) -> Callable[[], None]:
        """Take a place for `session`, waiting for it in line if need be.

        `on_queued` is told the position and the estimated seconds at first and when they change.
        `picture_s`: its work for each frame's picture, by `EngineLoad.picture_s`; None: the usual.
        A caller that is cancelled leaves the line.

        Returns:
            What gives the place back; to be called once.

        Raises:
            ProtocolError: `server_draining` or `model_loading`, or `capacity` with a full line.
        """
        self.check_open()
        if not self._has_room(picture_s):
            if self._line.is_full:
                raise self._full()
            await self._wait_in_line(on_queued, picture_s)
        return self._enter(session, picture_s)

    async def _wait_in_line(self, on_queued: OnQueued, picture_s: float | None) -> None:
        turn = asyncio.Event()
        ticket = Ticket(turn.set, on_queued, picture_s)
        self._line.join(ticket)
        self._tell()
        try:
            while not turn.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TELL_EVERY_S):
                        await turn.wait()
                self._call_those_who_fit()
            self.check_open()
        except BaseException:
            self._give_up(ticket)
            raise
        self._answered(ticket)

    def _answered(self, ticket: Ticket) -> None:
        self._called -= 1
        self._host.load.leave(ticket)

    def _give_up(self, ticket: Ticket) -> None:
        if not self._line.leave(ticket):
            self._answered(ticket)  # it was called, and passes the place on
        self._call_those_who_fit()

    def _enter(self, session: Drainable, picture_s: float | None) -> Callable[[], None]:
        self._sessions[session] = time.monotonic()
        self._host.load.enter(session, picture_s)
        self._empty.clear()
        self._metrics.sessions_active.set(self.active)
        return partial(self._leave, session)

    def _leave(self, session: Drainable) -> None:
        since_s = self._sessions.pop(session, None)
        self._host.load.leave(session)
        if since_s is not None:
            self._line.session_ended(time.monotonic() - since_s)
        self._metrics.sessions_active.set(self.active)
        if not self._sessions:
            self._empty.set()
        if self._trimmer is not None:
            self._trimmer.ask()
        self._call_those_who_fit()

    def _call_those_who_fit(self) -> None:
        while (ticket := self._line.next) is not None and self._fits(ticket.picture_s):
            self._called += 1
            self._host.load.enter(ticket, ticket.picture_s)
            self._line.call_next()
        self._tell()

    def _tell(self) -> None:
        self._metrics.sessions_queued.set(self.queued)
        self._line.tell(self._ages_s(), self._host.max_sessions)

    def _ages_s(self) -> list[float]:
        now_s = time.monotonic()
        return [now_s - since_s for since_s in self._sessions.values()]

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
        for ticket in self._line.clear():
            self._called += 1
            ticket.call()  # to be told that there will be no place
        for session in list(self._sessions):
            session.drain(timeout_s)
        try:
            # Sessions close themselves at the deadline; the second is for their close frames.
            async with asyncio.timeout(timeout_s + 1.0):
                await self.wait_empty()
        except TimeoutError:
            pass
