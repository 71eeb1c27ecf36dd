"""The sessions that may be resumed: which are live, which wait for their client, and how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import ResumeOffer
from visavis.server.handover.bundle import Bundle
from visavis.server.handover.desk import HandOverDesk
from visavis.server.resume_handle import HandleSigner

if TYPE_CHECKING:
    from visavis.server.caller import Caller
    from visavis.server.live_session import LiveSession

# Close codes after which a session is kept: the client did not mean to end it. uvicorn says 1005
# for a connection that broke off, as for a close frame without a code.
HELD_CLOSE_CODES = (1001, 1005, 1006, 1012)
# How finely the time is counted in which a client can come back.
COUNTED_EVERY_S = 0.25


class ResumeDesk:
    """Live sessions by id. A session that lost its socket waits here until its time is up."""

    def __init__(self, config: ServerConfig, replica: str) -> None:
        """replica: what this process is called, which handles say."""
        self.ttl_s = config.resume_ttl_s
        secret = config.resume_secret
        self._signer = HandleSigner(
            secret=None if secret is None else secret.get_secret_value(), replica=replica
        )
        # Where sessions go that this replica cannot keep, and come from.
        self.handover = HandOverDesk.from_config(config)
        self._sessions: dict[str, LiveSession] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        # Nobody can come back while it is not set: that time does not count.
        self.reachable = asyncio.Event()
        self.reachable.set()

    @property
    def sessions(self) -> list[LiveSession]:
        """All that are configured and have not ended, oldest first."""
        return list(self._sessions.values())

    def offer(self, session_id: str) -> ResumeOffer:
        """What a client needs in order to come back."""
        return ResumeOffer(handle=self._signer.sign(session_id), ttl_s=self.ttl_s)

    def add(self, session: LiveSession) -> None:
        """From here on the session can be resumed."""
        self._sessions[session.id] = session

    def remove(self, session: LiveSession) -> None:
        """The session has ended."""
        self._sessions.pop(session.id, None)
        waiting = self._waiting.pop(session.id, None)
        if waiting is not None and waiting is not asyncio.current_task():
            waiting.cancel()

    def waits(self, session: LiveSession) -> bool:
        """Whether the session has no socket now."""
        return session.id in self._waiting

    def hold(self, session: LiveSession) -> None:
        """Keep a session without a socket for its time, then end it; at once if it is to end."""
        self._waiting[session.id] = asyncio.create_task(self._expire(session))

    async def _expire(self, session: LiveSession) -> None:
        if session.out.closing:
            await session.end(session.out.close_reason)
            return
        left_s = self.ttl_s
        while left_s > 0:
            if not self.reachable.is_set():
                await self.reachable.wait()
                # A client that was told to wait comes back only after a while.
                left_s = self.ttl_s
            step_s = min(left_s, COUNTED_EVERY_S)
            await asyncio.sleep(step_s)
            left_s -= step_s
        await session.end("resume_expired")

    async def collect(self, handle: str) -> Bundle | None:
        """The session of a handle that another replica left, if it is not one of ours.

        Raises ProtocolError `invalid_resume_handle`.
        """
        session_id = self._signer.claims(handle).session_id
        if self.handover is None or session_id in self._sessions:
            return None
        return await self.handover.collect(session_id)

    def take(self, handle: str, caller: Caller | None) -> LiveSession:
        """The session of a handle, which stops waiting. `caller` is whoever opened it.

        Raises ProtocolError `invalid_resume_handle`, `resume_elsewhere` or `resume_expired`.
        """
        session = self._sessions.get(self._signer.session_id(handle))
        if session is None or session.out.closing:
            raise ProtocolError(
                ErrorCode.RESUME_EXPIRED,
                f"the session has ended, or waited longer than {self.ttl_s:g} s; open a new one",
                param="handle",
            )
        if (caller and caller.name) != (session.caller and session.caller.name):
            raise ProtocolError(
                ErrorCode.NOT_PERMITTED, "the session was opened with another key", param="handle"
            )
        waiting = self._waiting.pop(session.id, None)
        if waiting is not None:
            waiting.cancel()
        return session

    async def close(self) -> None:
        """End what waits; the server stops."""
        for session in self.sessions:
            if self.waits(session):
                await session.end("server_stopped")
