"""What is told of an engine that cannot work now: that it restarts, and has a session wait, go
elsewhere, or end; or that it takes no more. Never in silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visavis.server import events as ev
from visavis.server.deadlines import server_draining
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.worker import WorkerBusyError, WorkerStoppedError

if TYPE_CHECKING:
    from visavis.server.live_session import LiveSession

# How long the restart waits for sessions that leave for other replicas.
DEPART_WITHIN_S = 5.0
SAID_WITHIN_S = 0.05


def restarting(retry_after_s: float) -> ProtocolError:
    """What clients are told meanwhile."""
    return ProtocolError(
        ErrorCode.ENGINE_RESTARTING,
        "processes of the engine were lost and are started anew; connect again",
        retry_after_s=retry_after_s,
    )


def refused_work(error: WorkerBusyError) -> ProtocolError:
    """What clients are told when the engine's thread takes no more work."""
    if isinstance(error, WorkerStoppedError):
        return server_draining()
    return ProtocolError(
        ErrorCode.CAPACITY, f"the engine has too much to do: {error}", retry_after_s=1.0
    )


async def interrupt_all(
    sessions: Sequence[LiveSession], *, retry_after_s: float, kept: bool
) -> None:
    """Tell them; returns when those that can leave for another replica have done so.

    `kept`: whether this server's sessions outlive the restart.
    """
    for session in sessions:
        interrupt(session, retry_after_s=retry_after_s, kept=kept)
    # A session that leaves says no more: the warning goes out before.
    await asyncio.sleep(SAID_WITHIN_S)
    leaving = [session.depart().wait() for session in sessions if session.can_depart]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEPART_WITHIN_S):
            await asyncio.gather(*leaving, return_exceptions=True)


def interrupt(session: LiveSession, *, retry_after_s: float, kept: bool) -> None:
    """Tell one session's client; one that stays loses its socket, but nothing that it has."""
    if session.out.closing or session.departure is not None:
        return
    leaves, stays = session.can_depart, kept and session.holdable
    expiring = ev.SessionExpiring(
        reason="engine_restarting", deadline_s=0.0, resumable=leaves or stays
    )
    error = restarting(retry_after_s)
    if leaves:
        session.out.post(expiring)
    elif stays:
        session.out.part(expiring, error)
    else:
        session.out.post(expiring)
        session.fail(error)
