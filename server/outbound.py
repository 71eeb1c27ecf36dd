"""The sending half of a session: events at once, media at its time, everything bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.event_queue import MAX_EVENTS, EventQueue, OutboundState
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.media_sender import MediaSender
from visavis.server.media_source import MediaSource
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer
from visavis.server.playback_reports import PlaybackReports
from visavis.server.sent_ring import SentEvent, SentMedia, SentRing
from visavis.server.wire import GONE, Wire

if TYPE_CHECKING:
    from visavis.server.producer import Producer

TICK_S = 0.1


class Outbound:
    """The one writer of a session, on one socket at a time. Only `run` waits.

    on_slow: ends the session of a client that does not read; without it there is none, and the
    socket is closed with that error.
    """

    def __init__(
        self,
        socket: WebSocket,
        config: ServerConfig,
        metrics: Metrics,
        admission: Admission,
        *,
        on_slow: Callable[[ProtocolError], None] | None = None,
    ) -> None:
        self.end_reason = "unknown"
        self._wire = Wire(socket, metrics, slow_client_s=config.slow_client_s)
        self._config = config
        self._metrics = metrics
        self._admission = admission
        self._on_slow = on_slow or self.close_with
        self._events = EventQueue()
        self._replay: deque[SentEvent | SentMedia] = deque()
        self._closing: tuple[int, str] | None = None
        self._released = False
        self._held = False
        self._parting: tuple[ev.ServerEvent, ProtocolError] | None = None
        self._wake = asyncio.Event()
        self._conversation: Conversation | None = None
        self._pacer: Pacer | None = None
        self._media: MediaSender | None = None
        self._reports: PlaybackReports | None = None
        self._producer: Producer | None = None
        self._cancelled_s: float | None = None
        self._stats_s = 0.0
        self._tick_s = 0.0

    @property
    def closing(self) -> bool:
        """Whether the end is decided."""
        return self._closing is not None

    @property
    def close_reason(self) -> str:
        """Why it ends, once that is decided."""
        return "unknown" if self._closing is None else self._closing[1]

    @property
    def ring(self) -> SentRing:
        """What was sent lately."""
        return self._events.ring

    @property
    def media(self) -> MediaSource | None:
        """Where frames come from, once the session is configured."""
        return None if self._media is None else self._media.source

    def attach(
        self,
        conversation: Conversation,
        pacer: Pacer,
        producer: Producer,
        fmp4: Fmp4Writer | None = None,
    ) -> None:
        """The session is configured: media follows."""
        self._conversation, self._pacer, self._producer = conversation, pacer, producer
        self._reports = PlaybackReports(conversation, pacer, self._metrics)
        source = MediaSource(conversation, pacer)
        self._media = MediaSender(source, producer, fmp4, self._metrics, self._admission)

    def detach(self) -> None:
        """There is no more media, and nobody comes back for what was sent."""
        self._conversation = self._pacer = self._producer = self._reports = self._media = None
        self._replay.clear()
        self.ring.forget()

    def rebind(
        self,
        socket: WebSocket,
        first: ev.SessionResumed,
        replay: list[SentEvent | SentMedia],
        *,
        had: int | None,
    ) -> None:
        """Go on on another socket: `first` is said at once, then `replay`, then what waits.

        had: the number of the last event that the client has, None when nobody knows.
        """
        self._wire = Wire(socket, self._metrics, slow_client_s=self._config.slow_client_s)
        self._released = self._held = False
        self._parting = None
        self._events.resume(first, had)
        self._replay.clear()
        self._replay.extend(replay)
        if self._media is not None:
            self._media.restart()
        self._wake.set()

    def hold(self) -> None:
        """Send nothing and decide nothing, until `rebind` or the end."""
        self._held = True

    def save(self) -> OutboundState:
        """A copy, to go on with it elsewhere; what waits is forgotten here."""
        return self._events.save()

    def load(self, state: OutboundState) -> None:
        """Go on from a copy; the numbers of events go on, too."""
        self._events.load(state)

    def follow(self, other: Outbound) -> None:
        """Say one event more of the session of `other`, which leaves its number out: no two of a
        session have the same."""
        self._events.num_events = other._events.num_events
        other._events.num_events += 1

    def release(self) -> None:
        """Let `run` return after the events that wait; the socket stays open."""
        self._released = True
        self._wake.set()

    def part(self, warning: ev.ServerEvent, error: ProtocolError) -> None:
        """Say why, close the socket as the error's code says, and let `run` return: the session
        goes on on another socket, where none of this is said again."""
        self._parting = (warning, error)
        self.release()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def post(self, *items: ev.ServerEvent) -> None:
        """Queue events; they go out before any media that is not sent yet.

        Once the end is decided its reason is the last word: what comes later is not said.
        """
        if self._closing is not None:
            return
        if self._media is not None:
            self._media.note(items)
        if self._events.add(*items):
            self._on_slow(
                ProtocolError(
                    ErrorCode.SLOW_CLIENT,
                    f"{MAX_EVENTS:,} events wait to be read; read what the server sends",
                )
            )
        self._wake.set()

    def error(self, error: ProtocolError) -> None:
        """Queue an error event."""
        if self._closing is not None:
            return
        self._metrics.errors.labels(code=error.code).inc()
        self.post(ev.error_event(error))

    def close(self, code: int, reason: str) -> None:
        """Close after the events that are queued; the first reason stands."""
        if self._closing is None:
            self._closing = (code, reason)
        self._wake.set()

    def close_with(self, error: ProtocolError) -> None:
        """Queue an error event, and close as its code says."""
        self.error(error)
        self.close(error.spec.close or 1011, error.code)

    def cleared(self, now_s: float) -> None:
        """A cancel emptied the queues: what comes next plays at once."""
        self._cancelled_s = now_s
        if self._pacer is not None and self._conversation is not None:
            self._pacer.restart(self._conversation.next_pts_us, now_s)

    def acknowledged(self, pts_us: int, update: ev.PlaybackUpdate) -> None:
        """The client played up to `pts_us`."""
        if self._reports is not None:
            self._reports.take(pts_us, update)
        self._wake.set()

    def blocked_s(self, now_s: float) -> float:
        """How long the client has given no credit for media."""
        return 0.0 if self._pacer is None else self._pacer.blocked_s(now_s)

    async def run(self, housekeep: Callable[[float], None]) -> None:
        """Send until the socket is closed, from here or from there, or `release` was called."""
        try:
            while True:
                self._wake.clear()
                now_s = time.monotonic()
                due = now_s - self._tick_s >= TICK_S
                if due and not self._held and self._closing is None:
                    self._tick_s = now_s
                    self._tick(now_s)
                    housekeep(now_s)
                if not self._held or self._closing is not None:
                    await self._send_said()
                if self._closing is not None:
                    await self._close(*self._closing)
                    return
                if self._released:
                    if self._parting is not None:
                        await self._part(*self._parting)
                    return
                wait_s = None
                if self._media is not None and not self._held:
                    wait_s = self._media.source.wait_s(time.monotonic())
                if self._media is None or wait_s is None or wait_s > 0:
                    await self._wait(TICK_S if wait_s is None else wait_s)
                else:
                    await self._media.send(self._wire, self._events)
        except TimeoutError:  # which is an OSError, too
            await self._give_up()
        except GONE:
            self.end_reason = "client_left"

    async def _send_said(self) -> None:
        if self._replay:
            await self._send_again()
        while self._events:
            await self._send_event()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, TICK_S)):
                await self._wake.wait()

    async def _give_up(self) -> None:
        """The client has not read for too long; should it read now, it learns why it is closed."""
        if self._closing is None:
            limit = self._config.slow_client_s
            self._on_slow(ProtocolError(ErrorCode.SLOW_CLIENT, f"nothing was read for {limit:g} s"))
        assert self._closing is not None
        self._events.keep_owed()
        await self._wire.say_goodbye(self._events.take_all())
        await self._close(*self._closing)

    async def _part(self, warning: ev.ServerEvent, error: ProtocolError) -> None:
        self._metrics.errors.labels(code=error.code).inc()
        for event in (warning, ev.error_event(error)):
            await self._wire.send_text(self._events.number(event))
        await self._close(error.spec.close or 1011, error.code)

    async def _close(self, code: int, reason: str) -> None:
        self.end_reason = reason
        await self._wire.close(code, reason)

    async def _send_event(self) -> None:
        """The next one."""
        clears = isinstance(self._events.next, ev.OutputCleared)
        await self._wire.send_text(self._events.take())
        if clears and self._cancelled_s is not None:
            self._metrics.interrupt.observe(time.monotonic() - self._cancelled_s)
            self._cancelled_s = None

    async def _send_again(self) -> None:
        """What a client that came back has missed, after the event that tells it so."""
        if self._events.resumes:
            await self._send_event()
        while self._replay:
            item = self._replay.popleft()
            if isinstance(item, SentEvent):
                await self._wire.send_text(item.text)
            else:
                assert self._media is not None
                await self._media.send_frame(self._wire, item.header, item.audio, item.video)

    def _tick(self, now_s: float) -> None:
        if self._conversation is None or self._producer is None or self._media is None:
            return
        self.post(*self._conversation.tick(now_s))
        self.post(*self._media.source.dropped_events(now_s))
        if now_s - self._stats_s < self._config.stats_every_s:
            return
        self._stats_s = now_s
        self.post(self._producer.session_stats(dropped=self._media.source.dropped))
