"""One connection: reads a socket, and joins it to the session that it opens or resumes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog
from starlette.websockets import WebSocket

from visavis.server.admission import Admission
from visavis.server.caller import Caller, Quota
from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.greeting import greeting
from visavis.server.housekeeping import housekeep
from visavis.server.inbox import Inbox, message_size
from visavis.server.live_session import LiveSession
from visavis.server.message_handler import MessageHandler
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.outbound import Outbound
from visavis.server.resume import HELD_CLOSE_CODES, ResumeDesk

log = structlog.get_logger(__name__)


class RealtimeSession:
    """Serves one accepted WebSocket until it ends; see `run`.

    caller, quota: who opens sessions here and how much they may have, from authentication.
    """

    def __init__(
        self,
        socket: WebSocket,
        *,
        host: ModelHost,
        admission: Admission,
        config: ServerConfig,
        metrics: Metrics,
        desk: ResumeDesk,
        caller: Caller | None = None,
        quota: Quota | None = None,
    ) -> None:
        self._socket = socket
        self._host = host
        self._admission = admission
        self._config = config
        self._metrics = metrics
        self._desk = desk
        self._inbox = Inbox()
        self._handler = MessageHandler(
            LiveSession(
                socket,
                host=host,
                admission=admission,
                config=config,
                metrics=metrics,
                desk=desk,
                caller=caller,
                quota=quota,
            ),
            self._inbox,
            connection=self,
            socket=socket,
            host=host,
            config=config,
            desk=desk,
            caller=caller,
        )
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._close_code = 1006
        self._dismissed = False
        self._farewell = asyncio.Event()

    @property
    def live(self) -> LiveSession:
        """The session that the socket carries; another one after a resume."""
        return self._handler.live

    @property
    def pending(self) -> bool:
        """Whether the client was greeted and has asked for no session yet."""
        return self.live.conversation is None and not self.live.opening

    @property
    def id(self) -> str:
        """The session's id; another one after a resume."""
        return self.live.id

    async def run(self) -> str:
        """Serve the socket, which is accepted; returns why it ended, `held` for a kept session."""
        self.live.connection = self
        self.live.out.post(
            greeting(
                self.live.id,
                self._config,
                self._admission,
                self._desk,
                output=self._host.output_offer,
                features=self._host.features,
                max_session_s=self.live.max_session_s,
            )
        )
        reading = asyncio.create_task(self._guard(self._read()))
        handling = asyncio.create_task(self._guard(self._handler.run()))
        sending = asyncio.create_task(self._send())
        self._tasks = (reading, handling, sending)
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not self.live.opening:
                # What came before the close is still worth something.
                await self._inbox.close()
                await asyncio.wait((handling,), timeout=1.0)
            if self.live.out.closing and not sending.done():
                # The reason to close is still on its way out.
                await sending
        finally:
            await self._stop()
            reason = await self._part()
            if self._dismissed:
                # The socket is closed as soon as this returns.
                await self._farewell.wait()
        return reason

    async def _send(self) -> None:
        """Write what the session says; after a resume that is another session."""
        while True:
            live = self.live
            try:
                await live.out.run(partial(housekeep, live))
            except Exception as error:
                self._fault(error)
                # What failed is not tried again: this says why, and closes.
                await live.out.run(partial(housekeep, live))
            if live is self.live:
                return

    async def _stop(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("session task failed", exc_info=result)

    async def _part(self) -> str:
        """Leave the session: it ends, or waits for its client."""
        live = self.live
        if self._dismissed or live.connection is not self:
            return "taken_over"
        live.connection = None
        lost = self._close_code in HELD_CLOSE_CODES
        if live.departed or (lost and live.can_depart and not live.holdable):
            await live.depart().wait()
            await live.end("handed_over")
            return "handed_over"
        if live.holdable and lost:
            self._desk.hold(live)
            return "held"
        reason = live.out.end_reason if live.out.closing else "client_left"
        await live.end(reason)
        return reason

    async def dismiss(self) -> None:
        """A newer connection took the session over: say so and close."""
        self._dismissed = True
        try:
            await self._stop()
            out = Outbound(self._socket, self._config, self._metrics, self._admission)
            out.follow(self.live.out)
            out.close_with(
                ProtocolError(ErrorCode.TAKEN_OVER, "the session goes on on a newer connection")
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await out.run(lambda now_s: None)
        finally:
            self._farewell.set()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Turn whatever fails into an error on the wire and the end of this session alone."""
        try:
            await work
        except ProtocolError as error:
            self.live.fail(error)
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        """The server's own mistake: the details are for the log."""
        log.error("session failed", exc_info=error)
        self.live.fail(
            ProtocolError(
                ErrorCode.INTERNAL_ERROR,
                "the session failed inside the server; open a new one",
                retry_after_s=1.0,
            )
        )

    async def _read(self) -> None:
        """From the socket into the inbox, until the client is gone."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._close_code = message.get("code") or 1006
                return
            self._metrics.ws_bytes.labels(dir="in").inc(message_size(message))
            if self.live.opening and self._handler.answer_at_once(message):
                continue
            if not await self._inbox.put(message):
                self._handler.refuse_unread(message)
