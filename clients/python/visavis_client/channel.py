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
    ErrorEvent,
    Kind,
    ResumeOffer,
    ServerEvent,
    SessionCreated,
    SessionQueued,
    SessionResumed,
)
from visavis_client.resume import Reconnector
from visavis_client.server_errors import closes, server_error

E = TypeVar("E", bound=ServerEvent)
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
        timeout_s: float,
        receive: Receiver,
        finish: Callable[[AvatarError | None], Awaitable[None]],
        reconnector: Reconnector | None = None,
    ) -> None:
        self.over: SessionClosedError | None = None
        self.timeout_s = timeout_s
        self.resumes = 0
        self.outbox = Outbox()
        self._socket = socket
        self._receive = receive
        self._finish = finish
        self._reconnector = reconnector
        self._offer: ResumeOffer | None = None
        self._last_seq: int | None = None
        self._leaving = False
        self._ready = asyncio.Event()
        self._ready.set()
        self._num_requests = 0
        self._waiting: dict[str, _Request] = {}
        self._greeting: asyncio.Future[SessionCreated] = asyncio.get_running_loop().create_future()
        self._queued = asyncio.Event()
        self._last_error: ServerError | None = None
        self._reader = asyncio.create_task(self._run())

    def allow_resume(self, offer: ResumeOffer | None) -> None:
        """From now on a lost connection is opened again with this handle."""
        self._offer = offer

    async def greeting(self, queue_timeout_s: float) -> SessionCreated:
        """The server's first event; each place in its queue is waited for anew, in all no longer
        than `queue_timeout_s`. Raises ServerError when it refuses, TimedOutError."""
        try:
            async with asyncio.timeout(max(queue_timeout_s, self.timeout_s)):
                while True:
                    self._queued.clear()
                    try:
                        greeting = asyncio.shield(self._greeting)
                        return await self._within(greeting, SessionCreated.TYPE)
                    except TimedOutError:
                        if not self._queued.is_set():
                            raise
        except TimeoutError as error:
            if isinstance(error, TimedOutError):
                raise
            raise TimedOutError(
                f"there was no place within {queue_timeout_s:g} s", remedy="try again later"
            ) from None

    async def ask(self, event: ClientEvent, reply: type[E]) -> E:
        """Send an event and await its reply. Raises ServerError, TimedOutError."""
        self._num_requests += 1
        event_id = f"c{self._num_requests}"
        future: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        text = json.dumps({**event.to_json(), "event_id": event_id})
        self._waiting[event_id] = _Request(text, reply, future)
        try:
            await self._send(text, kept=True)
            return await self._within(future, reply.TYPE)
        finally:
            self._waiting.pop(event_id, None)

    async def tell(self, event: ClientEvent) -> None:
        """Send an event that has no reply. Raises SessionClosedError."""
        await self._send(json.dumps(event.to_json()))

    async def send_audio(self, pcm: bytes) -> None:
        """Send an AUDIO_IN message. Raises SessionClosedError."""
        message = self.outbox.add(pcm)
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
        """Send on the socket of the day; what is `kept` elsewhere is sent again by the resume."""
        while True:
            await self._ready.wait()
            if self.over is not None:
                raise self.over
            socket = self._socket
            try:
                await socket.send(message)
                return
            except ConnectionClosed:
                # The reader notices in the same moment, and knows whether it goes on.
                while self._socket is socket and not self._reader.done():
                    await asyncio.wait([self._reader], timeout=0.02)
                if self.over is None and kept:
                    await self._ready.wait()
                    if self.over is None:
                        return

    async def _within(self, future: asyncio.Future[E], what: str) -> E:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await future
        except TimeoutError:
            raise TimedOutError(
                f"no {what} came within {self.timeout_s:g} s",
                remedy="read frames while waiting, or give a longer timeout_s",
            ) from None

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
        if self._leaving or self._offer is None or self._reconnector is None:
            return False
        if not self._reconnector.may_resume(self._socket.close_code):
            return False
        try:
            resumed = await self._reconnector.resume(self._offer, self._last_seq)
        except ServerError as error:
            self._last_error = error
            return False
        except AvatarError:
            return False
        self._socket, event = resumed
        self._offer = event.resume
        self.resumes += 1
        await self._receive(event)
        return await self._send_again(event)

    async def _send_again(self, event: SessionResumed) -> bool:
        received = event.raw.get("received_seq")
        missing = self.outbox.missing(received if isinstance(received, int) else None)
        try:
            for message in missing:
                await self._socket.send(message.data)
                message.sent = True
            for request in list(self._waiting.values()):
                await self._socket.send(request.text)
        except ConnectionClosed:
            return await self._go_on()
        return True

    async def _on_event(self, event: ServerEvent) -> None:
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
