"""The sending half of a session: events at once, media at its time, everything bounded."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import FRAME_US, Conversation
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer
from visavis.server.protocol import Flag, encode_frame

if TYPE_CHECKING:
    from visavis.server.producer import Producer

# A client that makes the server say more than this without reading is not worth a place.
MAX_EVENTS = 1024
TICK_S = 0.1


class Outbound:
    """The one writer of a socket. `post`, `close` and `wake` never wait."""

    def __init__(
        self, socket: WebSocket, config: ServerConfig, metrics: Metrics, admission: Admission
    ) -> None:
        self.end_reason = "unknown"
        self._socket = socket
        self._config = config
        self._metrics = metrics
        self._admission = admission
        self._events: deque[ev.ServerEvent] = deque()
        self._num_events = 0
        self._closing: tuple[int, str] | None = None
        self._wake = asyncio.Event()
        self._conversation: Conversation | None = None
        self._pacer: Pacer | None = None
        self._producer: Producer | None = None
        self._audio_since_s: dict[int, float] = {}
        self._cancelled_s: float | None = None
        self._stats_s = 0.0
        self._tick_s = 0.0

    @property
    def closing(self) -> bool:
        """Whether the end is decided."""
        return self._closing is not None

    def attach(self, conversation: Conversation, pacer: Pacer, producer: Producer) -> None:
        """The session is configured: media follows."""
        self._conversation, self._pacer, self._producer = conversation, pacer, producer

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def post(self, *items: ev.ServerEvent) -> None:
        """Queue events; they go out before any media that is not sent yet."""
        for item in items:
            if isinstance(item, ev.ResponseCreated):
                self._audio_since_s[item.response_index] = time.monotonic()
            elif isinstance(item, ev.ResponseDone):
                self._audio_since_s.pop(item.response_index, None)
        if len(self._events) + len(items) > MAX_EVENTS and self._closing is None:
            self._events.clear()
            self._closing = (4408, ErrorCode.SLOW_CLIENT)
        self._events.extend(items)
        self._wake.set()

    def error(self, error: ProtocolError) -> None:
        """Queue an error event."""
        self._metrics.errors.labels(code=error.code).inc()
        body = ev.ErrorBody(
            type=error.spec.type,
            code=error.code,
            message=error.message,
            param=error.param,
            event_id=error.event_id,
            retryable=error.spec.retryable,
            retry_after_s=error.retry_after_s,
        )
        self.post(ev.ErrorEvent(error=body))

    def close(self, code: int, reason: str) -> None:
        """Close after the events that are queued; the first reason stands."""
        if self._closing is None:
            self._closing = (code, reason)
        self._wake.set()

    def cleared(self, now_s: float) -> None:
        """A cancel emptied the queues: what comes next plays at once."""
        self._cancelled_s = now_s
        if self._pacer is not None and self._conversation is not None:
            self._pacer.restart(self._conversation.next_pts_us)

    def acknowledged(self, pts_us: int, update: ev.PlaybackUpdate) -> None:
        """The client played up to `pts_us`."""
        if self._pacer is not None:
            self._pacer.acknowledge(pts_us)
        if update.skew_ms is not None:
            self._metrics.client_skew.observe(abs(update.skew_ms) / 1000)
        self._wake.set()

    def blocked_s(self, now_s: float) -> float:
        """How long the client has given no credit for media."""
        return 0.0 if self._pacer is None else self._pacer.blocked_s(now_s)

    async def run(self, housekeep: Callable[[float], None]) -> None:
        """Send until the socket is closed, from here or from there."""
        try:
            while True:
                self._wake.clear()
                now_s = time.monotonic()
                if now_s - self._tick_s >= TICK_S:
                    self._tick_s = now_s
                    self._tick(now_s)
                    housekeep(now_s)
                while self._events:
                    await self._send_event(self._events.popleft())
                if self._closing is not None:
                    await self._close(*self._closing)
                    return
                wait_s = self._media_wait_s(time.monotonic())
                if wait_s <= 0:
                    await self._send_media()
                else:
                    await self._wait(wait_s)
        except (WebSocketDisconnect, RuntimeError, OSError):
            # Starlette says RuntimeError for a socket that is closed already.
            self.end_reason = "client_left"
        except TimeoutError:
            self.end_reason = ErrorCode.SLOW_CLIENT
            self._closing = (4408, ErrorCode.SLOW_CLIENT)
            await self._close(*self._closing)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, TICK_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _close(self, code: int, reason: str) -> None:
        self.end_reason = reason
        try:
            async with asyncio.timeout(1.0):
                await self._socket.close(code, reason)
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            pass

    async def _send_event(self, event: ev.ServerEvent) -> None:
        self._num_events += 1
        event.event_id = f"evt_{self._num_events}"
        text = ev.encode_event(event)
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_text(text)
        self._metrics.ws_bytes.labels(dir="out").inc(len(text))
        if isinstance(event, ev.OutputCleared) and self._cancelled_s is not None:
            self._metrics.interrupt.observe(time.monotonic() - self._cancelled_s)
            self._cancelled_s = None

    def _media_wait_s(self, now_s: float) -> float:
        if self._conversation is None or self._pacer is None or not self._conversation.ready:
            return TICK_S
        idle = self._conversation.ready[0].response == 0
        # Idle frames in front of speech must not hold it back.
        idle = idle and self._conversation.ready[-1].response == 0
        delay_s = self._pacer.delay_s(self._conversation.next_index, now_s, idle=idle)
        return TICK_S if delay_s is None else delay_s

    async def _send_media(self) -> None:
        assert self._conversation is not None
        assert self._pacer is not None
        now_s = time.monotonic()
        index = self._conversation.next_index
        self._metrics.output_lag.observe(self._pacer.late_s(index, now_s))
        self._pacer.sent(index, now_s)
        stamped = self._conversation.stamp(
            now_s, playback_end_s=self._pacer.playback_end_s(index + 1, now_s)
        )
        header = stamped.header
        for event in stamped.before:
            await self._send_event(event)
        message = encode_frame(header, stamped.frame.audio, stamped.frame.video)
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_bytes(message)
        if header.flags & Flag.FIRST and header.response in self._audio_since_s:
            since_s = self._audio_since_s.pop(header.response)
            self._admission.observe_first_frame(time.monotonic() - since_s)
        kind = "idle" if header.flags & Flag.IDLE else "speech"
        self._metrics.frames_sent.labels(kind=kind).inc()
        self._metrics.ws_bytes.labels(dir="out").inc(len(message))
        for event in stamped.after:
            await self._send_event(event)
        if self._producer is not None:
            self._producer.wake()

    def _tick(self, now_s: float) -> None:
        if self._conversation is None or self._producer is None:
            return
        self.post(*self._conversation.tick(now_s))
        if now_s - self._stats_s < self._config.stats_every_s:
            return
        self._stats_s = now_s
        stats = self._producer.stats
        self.post(
            ev.SessionStats(
                rtf=None if stats.realtime_factor is None else round(stats.realtime_factor, 3),
                gen_fps=round(stats.frames_per_s, 1),
                queue_ms=len(self._conversation.ready) * FRAME_US / 1000,
                encode_ms=round(stats.encode_ms, 3),
                dropped=0,
            )
        )
