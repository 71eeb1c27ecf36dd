"""The sessions that an operator may look at and end. Belongs to the event loop."""

from __future__ import annotations

import time
from typing import Literal

from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from visavis.server.connections import Connections
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession
from visavis.server.resume import ResumeDesk

SessionState = Literal["queued", "loading", "connected", "waiting"]


class SessionJson(TypedDict):
    """An open session, as operators see it.

    `queued` waits for a place, `loading` for its avatar, `waiting` for its client to come back.
    `duration_s` counts from the moment it got its place; in the line, from its connection on.
    """

    id: str
    object: Literal["realtime.session"]
    key: str | None
    avatar_id: str | None
    state: SessionState
    created_at: float
    duration_s: float
    max_duration_s: float


class SessionList(TypedDict):
    """Those with a place first, oldest first."""

    object: Literal["list"]
    data: list[SessionJson]


def list_sessions(desk: ResumeDesk, connections: Connections) -> list[SessionJson]:
    """All sessions, those with a place first, oldest first; no secret is in it."""
    return [_session_json(session, desk) for session in _sessions(desk, connections)]


def _sessions(desk: ResumeDesk, connections: Connections) -> list[LiveSession]:
    there = desk.sessions
    return [*there, *(session for session in connections.opening if session not in there)]


async def end_session(desk: ResumeDesk, connections: Connections, session_id: str) -> None:
    """End one with `session_ended` and close code 4403. Raises HTTPException 404."""
    session = next((s for s in _sessions(desk, connections) if s.id == session_id), None)
    if session is None:
        raise HTTPException(
            404, "there is no such session; GET /v1/realtime/sessions lists those that there are"
        )
    session.fail(ProtocolError(ErrorCode.SESSION_ENDED, "an administrator ended the session"))
    if desk.waits(session):
        # Nobody is there to be told, and no connection that would free it.
        await session.end(str(ErrorCode.SESSION_ENDED))


def _state(session: LiveSession, desk: ResumeDesk) -> SessionState:
    if session.conversation is None:
        return "loading" if session.has_place else "queued"
    return "waiting" if desk.waits(session) else "connected"


def _session_json(session: LiveSession, desk: ResumeDesk) -> SessionJson:
    duration_s = session.age_s
    return {
        "id": session.id,
        "object": "realtime.session",
        "key": session.caller.name if session.caller is not None else None,
        "avatar_id": session.avatar_id,
        "state": _state(session, desk),
        "created_at": round(time.time() - duration_s, 3),
        "duration_s": round(duration_s, 3),
        "max_duration_s": session.max_session_s,
    }
