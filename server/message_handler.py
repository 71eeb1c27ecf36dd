"""What one connection's client says, carried out, one message after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import structlog
from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.caller import Caller, Connection
from visavis.server.config import ServerConfig
from visavis.server.conversation import stamp_source
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.handover.arrival import arrive
from visavis.server.handover.bundle import Bundle
from visavis.server.inbox import MAX_BYTES, Inbox, message_size
from visavis.server.live_session import LiveSession
from visavis.server.model_host import ModelHost
from visavis.server.negotiation import first_setup
from visavis.server.opening import open_session
from visavis.server.protocol import Kind, check_pcm16, decode_frame
from visavis.server.requests import handle_event
from visavis.server.resume import ResumeDesk
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


class MessageHandler:
    """Takes messages from `inbox` and says the answers through `live`, the session of the
    connection: another one after a resume."""

    def __init__(
        self,
        live: LiveSession,
        inbox: Inbox,
        *,
        connection: Connection,
        socket: WebSocket,
        host: ModelHost,
        config: ServerConfig,
        desk: ResumeDesk,
        caller: Caller | None,
    ) -> None:
        self.live = live
        self._inbox = inbox
        self._connection = connection
        self._socket = socket
        self._host = host
        self._config = config
        self._desk = desk
        self._caller = caller
        self._configure_by_s = self._handshake_end_s()
        self._client_errors = 0

    def _handshake_end_s(self) -> float:
        return asyncio.get_running_loop().time() + self._config.handshake_timeout_s

    def answer_at_once(self, message: Any) -> bool:
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
                self.live.leave(drain=False)
                return True
        return False

    def refuse_unread(self, message: Any) -> None:
        """There is no room for a message: the session is still opening."""
        try:
            self._check_size(message)
            raise ProtocolError(
                ErrorCode.INPUT_BUFFER_OVERFLOW,
                f"messages of {MAX_BYTES >> 20} MiB wait for the session to open, and this one was "
                "refused; send it again after session.updated",
                event_id=_event_id(message),
                retry_after_s=1.0,
            )
        except ProtocolError as error:
            self._refuse(error)

    async def run(self) -> None:
        """Handle messages until the inbox is closed or the session ends.

        Raises ProtocolError for a client that is not worth waiting for.
        """
        while not self.live.out.closing:
            message = await self._next_message()
            if message is None:
                return
            if self.live.departed:
                continue  # it will be said again, where the session goes on
            event_id: str | None = None
            try:
                self._check_size(message)
                text, data = message.get("text"), message.get("bytes")
                if text is not None:
                    event = ev.decode_client_event(text)
                    if event is not None:
                        event_id = event.event_id
                        await self._on_event(event, text)
                elif data is not None:
                    self._on_binary(data)
            except ProtocolError as error:
                error.event_id = error.event_id or event_id
                self._refuse(error)
            self.live.wake()

    async def _next_message(self) -> Any | None:
        if self.live.conversation is not None:
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
            self.live.fail(error)
            return
        self._client_errors += error.code not in _HARMLESS
        self.live.out.error(error)
        if self._client_errors >= MAX_CLIENT_ERRORS:
            self.live.fail(
                ProtocolError(
                    ErrorCode.TOO_MANY_ERRORS,
                    f"{self._client_errors} messages were wrong, the last one: {error.message}",
                )
            )

    async def _on_event(self, event: ev.ClientEvent, text: str) -> None:
        now_s = time.monotonic()
        if not isinstance(event, ev.PlaybackUpdate):
            self.live.deadlines.active(now_s)
        match event:
            case ev.SessionPing():
                self._pong(event)
            case ev.SessionClose(drain=drain):
                self.live.leave(drain=drain)
            case ev.SessionUpdate(session=settings):
                await self._on_update(settings, event, text)
            case ev.SessionResume():
                await self._on_resume(event)
            case _:
                self._reply(handle_event(self.live, event, now_s), event)

    def _pong(self, event: ev.SessionPing) -> None:
        pong = ev.SessionPong(t=event.t, server_time_us=time.monotonic_ns() // 1000)
        self._reply([pong], event)

    def _reply(self, replies: list[ev.ServerEvent], event: ev.ClientEvent) -> None:
        stamp_source(replies, event.event_id)
        self.live.out.post(*replies)

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
        if self.live.conversation is None:
            raise ProtocolError(
                ErrorCode.SESSION_NOT_CONFIGURED, "session.update must come before audio"
            )
        now_s = time.monotonic()
        self.live.deadlines.active(now_s)
        self.live.out.post(*self.live.append(check_pcm16(frame.audio), None, now_s))
        self.live.received_seq = frame.header.seq

    async def _on_update(
        self, settings: ev.SessionSettings, event: ev.ClientEvent, text: str
    ) -> None:
        if self.live.conversation is not None:
            self._reply([self.live.change(settings, ev.given_settings(text))], event)
            return
        setup = first_setup(settings, self._host.output_offer, self._host.features)
        try:
            async with self._inbox.refusing():
                with self.live.preparing():
                    updated = await open_session(self.live, setup)
            self._reply([updated], event)
        finally:
            self._configure_by_s = self._handshake_end_s()

    async def _on_resume(self, event: ev.SessionResume) -> None:
        """Leave the session that was greeted, which holds nothing yet, for the one resumed."""
        if self.live.conversation is not None:
            raise ProtocolError(
                ErrorCode.IMMUTABLE_FIELD,
                "this connection has a session; session.resume comes first on a new one",
            )
        bundle = await self._desk.collect(event.handle)
        if bundle is not None:
            await self._take_over(bundle, event)
            return
        found = self._desk.take(event.handle, self._caller)
        fresh = self.live
        if found.connection is not None:
            await found.connection.dismiss()
        found.connection = self._connection
        try:
            await resume(found, event, self._socket)
        except BaseException:
            found.connection = None
            self._desk.hold(found)
            raise
        self.live = found
        fresh.out.release()
        structlog.contextvars.bind_contextvars(session_id=found.id)
        log.info("session resumed")

    async def _take_over(self, bundle: Bundle, event: ev.SessionResume) -> None:
        """Go on with a session that another replica left."""
        try:
            async with self._inbox.refusing():
                with self.live.preparing():
                    await arrive(self.live, bundle)
                    await resume(self.live, event, self._socket)
        except BaseException as error:
            # Another try, here or elsewhere, may do better.
            if self._desk.handover is not None:
                await self._desk.handover.leave(bundle)
            if not isinstance(error, ProtocolError):
                raise
            error.event_id = event.event_id
            self.live.fail(error)
            return
        structlog.contextvars.bind_contextvars(session_id=self.live.id)
        log.info("session taken over from another replica")


def _event_id(message: Any) -> str | None:
    """The id of the event in a message, if it is one that has one."""
    text = message.get("text")
    if text is None:
        return None
    try:
        event = ev.decode_client_event(text)
    except ProtocolError as error:
        return error.event_id
    return None if event is None else event.event_id
