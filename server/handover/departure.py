"""A session leaves this replica: stopped between two frames, put into the store, sent on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from visavis.server.deadlines import server_draining
from visavis.server.errors import ProtocolError
from visavis.server.handover.bundle import BUNDLE_VERSION, Bundle
from visavis.server.handover.desk import HandOverDesk
from visavis.server.worker import WorkerBusyError

if TYPE_CHECKING:
    from visavis.server.live_session import LiveSession

log = structlog.get_logger(__name__)


class Departure:
    """Begins at once, in a task. Where it fails, the session ends as without a hand-over.

    `gone`: from here on the session is the next replica's, and what its client says as well.
    """

    def __init__(self, live: LiveSession, desk: HandOverDesk) -> None:
        self.gone = False
        self._live = live
        self._desk = desk
        self._task = asyncio.create_task(self._run())

    async def wait(self) -> None:
        """Until the session is left or has failed to be."""
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        live, reason = self._live, "handed_over"
        try:
            await self._desk.leave(await self._frozen())
        except (ProtocolError, ValueError, OSError, WorkerBusyError) as error:
            log.warning("session is not handed over", session_id=live.id, reason=str(error))
            live.fail(server_draining())
            reason = "server_draining"
        else:
            log.info("session left for another replica", session_id=live.id)
            live.out.close_with(server_draining())
        if live.connection is None:
            await live.end(reason)

    async def _frozen(self) -> Bundle:
        """The session between two frames. Raises ProtocolError, ValueError, WorkerBusyError."""
        live = self._live
        assert live.production is not None
        assert live.conversation is not None
        assert live.setup is not None
        live.out.hold()
        digest = None
        if live.setup.avatar_id is not None:
            digest = await live.host.stored_digest(live.setup.avatar_id)
        stream = await live.production.stop(max_bytes=self._desk.max_bytes)
        # Nothing waits from here on, so that nothing is said that is not in the copy.
        self.gone = True
        return Bundle(
            version=BUNDLE_VERSION,
            model=live.host.model,
            session_id=live.id,
            caller=None if live.caller is None else live.caller.name,
            setup=live.setup,
            avatar_digest=digest,
            age_s=live.age_s,
            received_seq=live.received_seq,
            stream=stream,
            conversation=live.conversation.save(),
            out=live.out.save(),
        )
