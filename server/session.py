"""One connection: reads a socket, and joins it to the session that it opens or resumes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import structlog
from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.caller import Caller, Lease
from visavis.server.config import ServerConfig
from visavis.server.conversation import stamp_source
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.greeting import greeting
from visavis.server.handover.arrival import arrive
from visavis.server.handover.bundle import Bundle
from visavis.server.inbox import Inbox, message_size
from visavis.server.live_session import LiveSession
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.negotiation import first_setup
from visavis.server.outbound import Outbound
from visavis.server.protocol import Kind, check_pcm16, decode_frame
from visavis.server.requests import handle_event
from visavis.server.resume import HELD_CLOSE_CODES, ResumeDesk
from visavis.server.resumption import resume

log = structlog.get_logger(__name__)
# Errors that a client may cause before it is taken for broken.
MAX_CLIENT_ERRORS = 20
# Pings and good-byes are short; longer messages are not looked into before their turn.
MAX_SMALL_EVENT = 1024
# Refusals of these codes are part of a working client's life.
_HARMLESS = (
    ErrorCode.INPUT_BUFFER_OVERFLOW,
    ErrorCode.INPUT_BUFFER_EMPTY,
    ErrorCode.INPUT_RATE_EXCEEDED,
)


class RealtimeSession:
    """Serves one accepted WebSocket until it ends; see `run`.

    caller, lease: who opens sessions here and what a session of theirs holds, from authentication.
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
        lease: Callable[[], AbstractContextManager[Lease]] | None = None,
    ) -> None:
        self._socket = socket
        self._host = host
        self._admission = admission
        self._config = config
        self._metrics = metrics
        self._desk = desk
        self._caller = caller
        self._live = LiveSession(
            socket,
            host=host,
            admission=admission,
            config=config,
            metrics=metrics,
            desk=desk,
            caller=caller,
            lease=lease,
        )
        self._inbox = Inbox()
        self._configure_by_s = self._handshake_end_s()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._close_code = 1006
        self._client_errors = 0
        self._dismissed = False
        self._farewell = asyncio.Event()

    def _handshake_end_s(self) -> float:
        return asyncio.get_running_loop().time() + self._config.handshake_timeout_s

    @property
    def id(self) -> str:
        """The session's id; another one after a resume."""
        return self._live.id

    async def run(self) -> str:
        """Serve the socket, which is accepted; returns why it ended, `held` for a kept session."""
        self._live.connection = self
        self._live.out.post(
            greeting(
                self._live.id,
                self._config,
                self._admission,
                self._desk,
                output=self._host.output_offer,
                features=self._host.features,
                max_session_s=self._live.max_session_s,
            )
        )
        reading = asyncio.create_task(self._guard(self._read()))
        handling = asyncio.create_task(self._guard(self._handle()))
        sending = asyncio.create_task(self._send())
        self._tasks = (reading, handling, sending)
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not self._live.opening:
                # What came before the close is still worth something.
                await self._inbox.close()
                await asyncio.wait((handling,), timeout=1.0)
            if self._live.out.closing and not sending.done():
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
            live = self._live
            try:
                await live.out.run(live.housekeep)
            except Exception as error:
                self._fault(error)
                # What failed is not tried again: this says why, and closes.
                await live.out.run(live.housekeep)
            if live is self._live:
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
        live = self._live
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
            out.follow(self._live.out)
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
            self._live.fail(error)
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        """The server's own mistake: the details are for the log."""
        log.error("session failed", exc_info=error)
        self._live.fail(
            ProtocolError(
                ErrorCode.INTERNAL_ERROR,
                "the session failed inside the server; open a new one",
                retry_after_s=1.0,
            )
        )

    # Receiving

    async def _read(self) -> None:
        """From the socket into the inbox, until the client is gone."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._close_code = message.get("code") or 1006
                return
            self._metrics.ws_bytes.labels(dir="in").inc(message_size(message))
            if self._live.opening and self._answer_while_opening(message):
                continue
            await self._inbox.put(message)

    def _answer_while_opening(self, message: Any) -> bool:
        """Pings and good-byes do not wait for a place in the queue; True when it was one."""
        text = message.get("text")
        if text is None or len(text) > MAX_SMALL_EVENT:
            return False
        with contextlib.suppress(ProtocolError):
            event = ev.decode_client_event(text)
            if isinstance(event, ev.SessionPing):
                self._pong(event)
                return True
            if isinstance(event, ev.SessionClose):
                self._live.leave(drain=False)
                return True
        return False

    async def _handle(self) -> None:
        while not self._live.out.closing:
            message = await self._next_message()
            if message is None:
                return
            if self._live.departed:
                continue  # it will be said again, where the session goes on
            event_id: str | None = None
            try:
                self._check_size(message)
                text, data = message.get("text"), message.get("bytes")
                if text is not None:
                    event = ev.decode_client_event(text)
                    if event is not None:
                        event_id = event.event_id
                        await self._on_event(event)
                elif data is not None:
                    self._on_binary(data)
            except ProtocolError as error:
                error.event_id = error.event_id or event_id
                self._refuse(error)
            self._live.wake()

    async def _next_message(self) -> Any | None:
        if self._live.conversation is not None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout_at(self._configure_by_s):
                return await self._inbox.get()
        except TimeoutError:
            raise ProtocolError(
                ErrorCode.SESSION_UPDATE_TIMEOUT,
                f"no session.update came within {self._config.handshake_timeout_s:g} s",
            ) from None

    def _check_size(self, message: Any) -> None:
        size = message_size(message)
        if size > self._config.max_message_bytes:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the message has {size:,} bytes, {self._config.max_message_bytes:,} at most; "
                "send audio in pieces, and large pictures to POST /v1/avatars",
            )

    def _refuse(self, error: ProtocolError) -> None:
        """Tell the client; close only when the code says so, or after too many errors."""
        if error.spec.close is not None:
            self._live.fail(error)
            return
        self._client_errors += error.code not in _HARMLESS
        self._live.out.error(error)
        if self._client_errors >= MAX_CLIENT_ERRORS:
            self._live.fail(
                ProtocolError(
                    ErrorCode.TOO_MANY_ERRORS,
                    f"{self._client_errors} messages were wrong, the last one: {error.message}",
                )
            )

    async def _on_event(self, event: ev.ClientEvent) -> None:
        now_s = time.monotonic()
        if not isinstance(event, ev.PlaybackUpdate):
            self._live.deadlines.active(now_s)
        match event:
            case ev.SessionPing():
                self._pong(event)
            case ev.SessionClose(drain=drain):
                self._live.leave(drain=drain)
            case ev.SessionUpdate(session=settings):
                await self._on_update(settings, event)
            case ev.SessionResume():
                await self._on_resume(event)
            case _:
                self._reply(handle_event(self._live, event, now_s), event)

    def _pong(self, event: ev.SessionPing) -> None:
        pong = ev.SessionPong(t=event.t, server_time_us=time.monotonic_ns() // 1000)
        self._reply([pong], event)

    def _reply(self, replies: list[ev.ServerEvent], event: ev.ClientEvent) -> None:
        stamp_source(replies, event.event_id)
        self._live.out.post(*replies)

    def _on_binary(self, data: bytes) -> None:
        if ev.is_event(data):
            # As a frame of an unknown kind it would be ignored, and its sender wait for ever.
            raise ProtocolError(
                ErrorCode.UNSUPPORTED_DATA,
                "an event came as a binary message; send events as text, and audio as binary",
            )
        frame = decode_frame(data)
        if frame.header.kind != Kind.AUDIO_IN:
            return
        if self._live.conversation is None:
            raise ProtocolError(
                ErrorCode.SESSION_NOT_CONFIGURED, "session.update must come before audio"
            )
        now_s = time.monotonic()
        self._live.deadlines.active(now_s)
        self._live.out.post(*self._live.append(check_pcm16(frame.audio), None, now_s))
        self._live.received_seq = frame.header.seq

    async def _on_update(self, settings: ev.SessionSettings, event: ev.ClientEvent) -> None:
        if self._live.conversation is not None:
            self._reply([self._live.change(settings)], event)
            return
        setup = first_setup(settings, self._host.output_offer, self._host.features)
        try:
            with self._live.preparing():
                updated = await self._live.open(setup)
            self._reply([updated], event)
        finally:
            self._configure_by_s = self._handshake_end_s()

    async def _on_resume(self, event: ev.SessionResume) -> None:
        """Leave the session that was greeted, which holds nothing yet, for the one resumed."""
        if self._live.conversation is not None:
            raise ProtocolError(
                ErrorCode.IMMUTABLE_FIELD,
                "this connection has a session; session.resume comes first on a new one",
            )
        bundle = await self._desk.collect(event.handle)
        if bundle is not None:
            await self._take_over(bundle, event)
            return
        found = self._desk.take(event.handle, self._caller)
        fresh = self._live
        if found.connection is not None:
            await found.connection.dismiss()
        found.connection = self
        try:
            await resume(found, event, self._socket)
        except BaseException:
            found.connection = None
            self._desk.hold(found)
            raise
        self._live = found
        fresh.out.release()
        structlog.contextvars.bind_contextvars(session_id=found.id)
        log.info("session resumed")

    async def _take_over(self, bundle: Bundle, event: ev.SessionResume) -> None:
        """Go on with a session that another replica left."""
        try:
            with self._live.preparing():
                await arrive(self._live, bundle)
                await resume(self._live, event, self._socket)
        except BaseException as error:
            # Another try, here or elsewhere, may do better.
            if self._desk.handover is not None:
                await self._desk.handover.leave(bundle)
            if not isinstance(error, ProtocolError):
                raise
            error.event_id = event.event_id
            self._live.fail(error)
            return
        structlog.contextvars.bind_contextvars(session_id=self._live.id)
        log.info("session taken over from another replica")
