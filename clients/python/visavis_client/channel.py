"""A socket of the protocol: requests with their replies, and everything else in order.

When the connection is lost and the server holds the session, a new socket takes the old one's place
and nobody above notices, but for a `session.resumed` among the events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from visavis_client import wire
from visavis_client.errors import AvatarError, ServerError, SessionClosedError, TimedOutError
from visavis_client.events import parse_event
from visavis_client.outbox import Outbox
from visavis_client.protocol import (
    ClientEvent,
    ErrorCode,
    ErrorEvent,
    ErrorType,
    Kind,
    ResumeOffer,
    ServerEvent,
    SessionCreated,
    SessionExpiring,
    SessionQueued,
    SessionResume,
    SessionResumed,
    SessionUpdated,
)
from visavis_client.resume import Reconnector
from visavis_client.server_errors import closes, server_error

E = TypeVar("E", bound=ServerEvent)
T = TypeVar("T")
Receiver = Callable[[ServerEvent | wire.Message | ServerError], Awaitable[None]]
CLOSE_S = 2.0


@dataclass(slots=True)
class _Request:
    """A client event whose reply is awaited; sent again after a resume."""

    text: str
    reply: type[ServerEvent]
    future: asyncio.Future[Any]


class Channel:
    """Sends, and reads in a task of its own. Made inside of an event loop.

    receive: awaited for each event and binary message in order, before whoever asked gets an
    event as a reply; gets a ServerError for an error that belongs to no request.
    finish: awaited once when all is over, with None or what is to be raised from now on.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        outbox: Outbox,
        timeout_s: float,
        receive: Receiver,
        finish: Callable[[AvatarError | None], Awaitable[None]],
        reconnector: Reconnector | None = None,
    ) -> None:
        self.over: SessionClosedError | None = None
        self.timeout_s = timeout_s
        self.resumes = 0
        self._socket = socket
        self._outbox = outbox
        self._receive = receive
        self._finish = finish
        self._reconnector = reconnector
        self._offer: ResumeOffer | None = None
        self._held = False
        self._last_seq: int | None = None
        self._last_event_id: str | None = None
        self._leaving = False
        self._ready = asyncio.Event()
        self._ready.set()
        self._num_requests = 0
        self._waiting: dict[str, _Request] = {}
        self._greeting: asyncio.Future[SessionCreated] = asyncio.get_running_loop().create_future()
        self._queued = asyncio.Event()
        self._last_error: ServerError | None = None
        self._reader = asyncio.create_task(self._run())

    async def greeting(self, queue_timeout_s: float) -> SessionCreated:
        """The server's first event.

        Raises ServerError when it refuses, CapacityError when there was no place within
        `queue_timeout_s`, TimedOutError when it says nothing.
        """
        return await self._within(self._greeting, SessionCreated.TYPE, queue_timeout_s)

    async def ask(
        self, event: ClientEvent, reply: type[E], *, queue_timeout_s: float | None = None
    ) -> E:
        """Send an event and await its reply, for `queue_timeout_s` when told to queue.

        Raises ServerError, TimedOutError; and CapacityError as `greeting`.
        """
        self._num_requests += 1
        event_id = f"c{self._num_requests}"
        future: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        text = json.dumps({**event.to_json(), "event_id": event_id})
        self._waiting[event_id] = _Request(text, reply, future)
        try:
            await self._send(text, kept=True)
            return await self._within(future, reply.TYPE, queue_timeout_s)
        finally:
            self._waiting.pop(event_id, None)

    async def tell(self, event: ClientEvent) -> None:
        """Send an event that has no reply. Raises SessionClosedError."""
        await self._send(json.dumps(event.to_json()))

    async def send_audio(self, pcm: bytes) -> None:
        """Send an AUDIO_IN message. Raises SessionClosedError."""
        message = self._outbox.add(pcm)
        await self._send(message.data, kept=True)
        message.sent = True

    async def wait_closed(self, *, timeout_s: float | None = CLOSE_S) -> None:
        """Wait for the server to close the socket; after `timeout_s` close it from here."""
        self._leaving = True
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._reader)
        except TimeoutError:
            await self._socket.close()
            self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _send(self, message: str | bytes, *, kept: bool = False) -> None:
        """Send on the socket of the day; what is `kept` elsewhere is sent again by a resume."""
        before = self.resumes
        while True:
            await self._ready.wait()
            if self.over is not None:
                raise self.over
            if kept and self.resumes != before:
                return
            socket = self._socket
            try:
                await socket.send(message)
                return
            except ConnectionClosed:
                # The reader notices in the same moment, and knows whether it goes on.
                while self._socket is socket and self._ready.is_set() and self.over is None:
                    await asyncio.wait([self._reader], timeout=0.02)

    async def _within(
        self, future: asyncio.Future[T], what: str, queue_timeout_s: float | None = None
    ) -> T:
        queued = asyncio.create_task(self._queued.wait())
        waiting: set[asyncio.Future[Any]] = {future}
        if queue_timeout_s is not None:
            waiting.add(queued)
        try:
            await asyncio.wait(waiting, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            if queue_timeout_s is None or not queued.done():
                raise TimedOutError(
                    f"no {what} came within {self.timeout_s:g} s",
                    remedy="read frames while waiting, or give a longer timeout_s",
                )
            await asyncio.wait({future}, timeout=queue_timeout_s)
            if future.done():
                return future.result()
            message = f"all places are taken, and none became free within {queue_timeout_s:g} s"
            raise server_error(
                {"code": ErrorCode.CAPACITY, "type": ErrorType.CAPACITY, "message": message}
            )
        finally:
            queued.cancel()

    # What comes in

    async def _run(self) -> None:
        failure: AvatarError | None = None
        try:
            while True:
                await self._read()
                self._ready.clear()
                if not await self._go_on():
                    return
                self._ready.set()
        except AvatarError as error:
            failure = error
            await self._socket.close(1002)
        finally:
            await self._end(failure)

    async def _read(self) -> None:
        """Take messages until the connection is gone. Raises WireError for a damaged one."""
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    binary = wire.Message.decode(message)
                    if binary.kind in (Kind.MEDIA, Kind.FMP4, Kind.CODEC_CONFIG):
                        self._last_seq = binary.seq
                    await self._receive(binary)
                else:
                    await self._on_event(parse_event(message))
        except ConnectionClosed:
            return

    async def _go_on(self) -> bool:
        """Whether a new socket has taken the lost one's place."""
        if self._leaving or self._reconnector is None:
            return False
        if self._offer is None or not self._held:
            return False
        if not self._reconnector.may_resume(self._socket.close_code):
            return False
        try:
            request = SessionResume(
                handle=self._offer.handle,
                last_seq=self._last_seq,
                last_event_id=self._last_event_id,
            )
            resumed = await self._reconnector.resume(request, self._offer.ttl_s)
        except ServerError as error:
            self._last_error = error
            return False
        except AvatarError:
            return False
        self._socket, event = resumed
        self._offer = event.resume
        await self._receive(event)
        # In one step: from here on, whoever sends does it himself.
        missing = list(self._outbox.missing(event.received_seq))
        requests = list(self._waiting.values())
        self.resumes += 1
        try:
            for message in missing:
                await self._socket.send(message.data)
                message.sent = True
            for waiting in requests:
                await self._socket.send(waiting.text)
        except ConnectionClosed:
            return await self._go_on()
        return True

    async def _on_event(self, event: ServerEvent) -> None:
        self._last_event_id = event.event_id or self._last_event_id
        if isinstance(event, SessionResumed):
            return  # of an earlier time, among what was missed
        self._note_offer(event)
        await self._receive(event)
        if isinstance(event, ErrorEvent):
            await self._on_error(server_error(event.error))
        elif isinstance(event, SessionCreated) and not self._greeting.done():
            self._greeting.set_result(event)
        elif isinstance(event, SessionQueued):
            self._queued.set()
        request = self._waiting.get(event.source_event_id or "")
        if request is not None and isinstance(event, request.reply) and not request.future.done():
            request.future.set_result(event)

    def _note_offer(self, event: ServerEvent) -> None:
        """Follow whether the server holds the session, and with which handle it goes on."""
        match event:
            case SessionCreated():
                self._offer = event.resume
            case SessionUpdated():
                self._held = event.session.on_disconnect == "hold"
            case SessionExpiring(reason="server_draining" | "engine_restarting", resumable=False):
                self._offer = None

    async def _on_error(self, error: ServerError) -> None:
        self._last_error = error
        request = self._waiting.get(error.event_id or "")
        if request is not None and not request.future.done():
            request.future.set_exception(error)
        elif not self._greeting.done():
            self._greeting.set_exception(error)
        elif not closes(error.code):
            await self._receive(error)

    async def _end(self, failure: AvatarError | None) -> None:
        """All is over: wake everybody who waits."""
        code, reason = self._socket.close_code, self._socket.close_reason or ""
        last = self._last_error
        refused = last is not None and (last.code == reason or closes(last.code))
        self.over = SessionClosedError(code, str(failure or reason), last if refused else None)
        futures = [request.future for request in self._waiting.values()]
        for future in [*futures, self._greeting]:
            if not future.done():
                future.set_exception(self.over)
            future.exception()  # seen, even if nobody waits any more
        self._ready.set()
        await self._finish(None if code == 1000 and failure is None else failure or self.over)
