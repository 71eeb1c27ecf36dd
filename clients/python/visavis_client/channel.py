"""A socket of the protocol: requests with their replies, and everything else in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from visavis_client import wire
from visavis_client.errors import (
    CLOSING,
    AvatarError,
    ServerError,
    SessionClosedError,
    TimedOutError,
)
from visavis_client.events import ErrorEvent, Event, SessionCreated, parse_event

E = TypeVar("E", bound=Event)
Receiver = Callable[[Event | wire.Message | ServerError], Awaitable[None]]
CLOSE_S = 2.0


class Channel:
    """Sends, and reads in a task of its own.

    receive: awaited for each event and binary message in order, before whoever asked gets an
    event as a reply; gets a ServerError for an error that belongs to no request.
    finish: awaited once when the socket is closed, with None or what is to be raised from now on.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        timeout_s: float,
        receive: Receiver,
        finish: Callable[[AvatarError | None], Awaitable[None]],
    ) -> None:
        self.over: SessionClosedError | None = None
        self.timeout_s = timeout_s
        self._socket = socket
        self._receive = receive
        self._finish = finish
        self._num_requests = 0
        self._waiting: dict[str, tuple[type[Event], asyncio.Future[Any]]] = {}
        self._greeting: asyncio.Future[SessionCreated] = asyncio.get_running_loop().create_future()
        self._last_error: ServerError | None = None
        self._reader = asyncio.create_task(self._read())

    async def greeting(self) -> SessionCreated:
        """The server's first event. Raises ServerError when it refuses, TimedOutError."""
        return await self._within(asyncio.shield(self._greeting), SessionCreated.TYPE)

    async def ask(self, kind: str, reply: type[E], **fields: Any) -> E:
        """Send an event and await its reply. Raises ServerError, TimedOutError."""
        self._num_requests += 1
        event_id = f"c{self._num_requests}"
        future: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        self._waiting[event_id] = (reply, future)
        try:
            await self.send_event(kind, event_id=event_id, **fields)
            return await self._within(future, reply.TYPE)
        finally:
            self._waiting.pop(event_id, None)

    async def send_event(self, kind: str, **fields: Any) -> None:
        """Send an event that has no reply. Raises SessionClosedError."""
        await self.send(json.dumps({"type": kind, **fields}))

    async def send(self, message: str | bytes) -> None:
        """Send one message. Raises SessionClosedError."""
        if self.over is not None:
            raise self.over
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            await asyncio.wait([self._reader])  # it knows why
            raise self.over or SessionClosedError(None, "", None) from None

    async def wait_closed(self, *, timeout_s: float | None = CLOSE_S) -> None:
        """Wait for the server to close the socket; after `timeout_s` close it from here."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._reader)
        except TimeoutError:
            await self._socket.close()
            self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _within(self, future: asyncio.Future[E], what: str) -> E:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await future
        except TimeoutError:
            raise TimedOutError(
                f"no {what} came within {self.timeout_s:g} s",
                remedy="read frames while waiting, or give a longer timeout_s",
            ) from None

    async def _read(self) -> None:
        failure: AvatarError | None = None
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    await self._receive(wire.Message.decode(message))
                else:
                    await self._on_event(parse_event(message))
        except ConnectionClosed:
            pass
        except AvatarError as error:
            failure = error
            await self._socket.close(1002)
        finally:
            await self._end(failure)

    async def _on_event(self, event: Event) -> None:
        await self._receive(event)
        if isinstance(event, ErrorEvent):
            await self._on_error(event.exception())
        elif isinstance(event, SessionCreated) and not self._greeting.done():
            self._greeting.set_result(event)
        reply, future = self._waiting.get(event.source_event_id or "", (None, None))
        if reply is not None and isinstance(event, reply) and future and not future.done():
            future.set_result(event)

    async def _on_error(self, error: ServerError) -> None:
        self._last_error = error
        future = self._waiting.get(error.event_id or "", (None, None))[1]
        if future is not None and not future.done():
            future.set_exception(error)
        elif not self._greeting.done():
            self._greeting.set_exception(error)
        elif error.code not in CLOSING:
            await self._receive(error)

    async def _end(self, failure: AvatarError | None) -> None:
        """The socket is closed: wake everybody who waits."""
        code, reason = self._socket.close_code, self._socket.close_reason or ""
        last = self._last_error
        because = last if last is not None and last.code == reason else None
        self.over = SessionClosedError(code, str(failure or reason), because)
        for future in [f for _, f in self._waiting.values()] + [self._greeting]:
            if not future.done():
                future.set_exception(self.over)
            future.exception()  # seen, even if nobody waits any more
        await self._finish(None if code == 1000 and failure is None else failure or self.over)
