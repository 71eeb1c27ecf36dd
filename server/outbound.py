"""The sending half of a session: events at once, media at its time, everything bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import FRAME_US, Conversation
from visavis.server.errors import CLOSE_CODES, ErrorCode, ProtocolError
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.media_source import MediaSource
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer
from visavis.server.protocol import Flag, Header, Kind, encode_frame
from visavis.server.sent_ring import SentEvent, SentMedia, SentRing

if TYPE_CHECKING:
    from visavis.server.producer import Producer

# A client that makes the server say more than this without reading is not worth a place.
MAX_EVENTS = 1024
TICK_S = 0.1
# Told again or worthless later: not kept for a client that comes back.
_PASSING = (ev.SessionStats, ev.SessionPong, ev.AudioAppended, ev.SessionLoading)


class Outbound:
    """The one writer of a session, on one socket at a time. Only `run` waits."""

    def __init__(
        self, socket: WebSocket, config: ServerConfig, metrics: Metrics, admission: Admission
    ) -> None:
        self.end_reason = "unknown"
        self.ring = SentRing()
        self.num_events = 0
        self._socket = socket
        self._config = config
        self._metrics = metrics
        self._admission = admission
        self._events: deque[ev.ServerEvent] = deque()
        self._replay: deque[SentEvent | SentMedia] = deque()
        self._closing: tuple[int, str] | None = None
        self._released = False
        self._wake = asyncio.Event()
        self._conversation: Conversation | None = None
        self._pacer: Pacer | None = None
        self._media: MediaSource | None = None
        self._producer: Producer | None = None
        self._fmp4: Fmp4Writer | None = None
        self._audio_since_s: dict[int, float] = {}
        self._cancelled_s: float | None = None
        self._underruns = 0
        self._stats_s = 0.0
        self._tick_s = 0.0

    @property
    def closing(self) -> bool:
        """Whether the end is decided."""
        return self._closing is not None

    @property
    def media(self) -> MediaSource | None:
        """Where frames come from, once the session is configured."""
        return self._media

    def attach(
        self,
        conversation: Conversation,
        pacer: Pacer,
        producer: Producer,
        fmp4: Fmp4Writer | None = None,
    ) -> None:
        """The session is configured: media follows."""
        self._conversation, self._pacer, self._producer = conversation, pacer, producer
        self._media = MediaSource(conversation, pacer)
        self._fmp4 = fmp4

    def rebind(
        self, socket: WebSocket, first: ev.ServerEvent, replay: list[SentEvent | SentMedia]
    ) -> None:
        """Go on on another socket: `first` is said at once, then `replay`, then what waits."""
        self._socket = socket
        self._released = False
        self._events.appendleft(first)
        self._replay.clear()
        self._replay.extend(replay)
        if self._fmp4 is not None:
            self._fmp4.restart()

    def release(self) -> None:
        """Let `run` return after the events that wait; the socket stays open."""
        self._released = True
        self._wake.set()

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
        if self._pacer is not None:
            self._pacer.acknowledge(pts_us, time.monotonic())
        if update.skew_ms is not None:
            self._metrics.client_skew.observe(abs(update.skew_ms) / 1000)
        self._count_underruns(update.underruns)
        self._wake.set()

    def _count_underruns(self, told: int) -> None:
        """What is new in the client's sum, which begins anew with a page that was loaded anew."""
        sent = 0 if self._conversation is None else self._conversation.next_index
        # No more media can have come too late than was sent.
        total = min(max(told, 0), sent)
        self._metrics.client_underruns.inc(max(0, total - self._underruns))
        self._underruns = total

    def blocked_s(self, now_s: float) -> float:
        """How long the client has given no credit for media."""
        return 0.0 if self._pacer is None else self._pacer.blocked_s(now_s)

    async def run(self, housekeep: Callable[[float], None]) -> None:
        """Send until the socket is closed, from here or from there, or `release` was called."""
        try:
            while True:
                self._wake.clear()
                now_s = time.monotonic()
                if now_s - self._tick_s >= TICK_S:
                    self._tick_s = now_s
                    self._tick(now_s)
                    housekeep(now_s)
                if self._replay:
                    await self._send_again()
                while self._events:
                    await self._send_event(self._events.popleft())
                if self._closing is not None:
                    await self._close(*self._closing)
                    return
                if self._released:
                    return
                wait_s = self._media.wait_s(time.monotonic()) if self._media else None
                if wait_s is None or wait_s > 0:
                    await self._wait(TICK_S if wait_s is None else wait_s)
                else:
                    await self._send_media()
        except (WebSocketDisconnect, RuntimeError, OSError):
            # Starlette says RuntimeError for a socket that is closed already.
            self.end_reason = "client_left"
        except TimeoutError:
            self.end_reason = ErrorCode.SLOW_CLIENT
            self._closing = (4408, ErrorCode.SLOW_CLIENT)
            await self._close(*self._closing)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, TICK_S)):
                await self._wake.wait()

    async def _close(self, code: int, reason: str) -> None:
        assert code in CLOSE_CODES
        self.end_reason = reason
        with contextlib.suppress(TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(1.0):
                await self._socket.close(code, reason)

    async def _send_text(self, text: str) -> None:
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_text(text)
        self._metrics.ws_bytes.labels(dir="out").inc(len(text))

    async def _send_bytes(self, message: bytes) -> None:
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_bytes(message)
        self._metrics.ws_bytes.labels(dir="out").inc(len(message))

    def _keep(self, event: ev.ServerEvent) -> str:
        """Number an event and remember it for a client that comes back."""
        self.num_events += 1
        event.event_id = f"evt_{self.num_events}"
        text = ev.encode_event(event)
        if not isinstance(event, _PASSING):
            self.ring.add_event(self.num_events, text)
        return text

    async def _send_event(self, event: ev.ServerEvent) -> None:
        await self._send_text(self._keep(event))
        if isinstance(event, ev.OutputCleared) and self._cancelled_s is not None:
            self._metrics.interrupt.observe(time.monotonic() - self._cancelled_s)
            self._cancelled_s = None

    async def _send_again(self) -> None:
        """What a client that came back has missed, after the event that tells it so."""
        if self._events and isinstance(self._events[0], ev.SessionResumed):
            await self._send_event(self._events.popleft())
        while self._replay:
            item = self._replay.popleft()
            if isinstance(item, SentEvent):
                await self._send_text(item.text)
            else:
                await self._send_picture(item.header, item.audio, item.video)

    async def _send_picture(self, header: Header, audio: bytes, video: bytes) -> None:
        if self._fmp4 is not None:
            config = self._fmp4.config(video)
            if config is not None:
                head = Header(kind=Kind.CODEC_CONFIG, seq=header.seq, video_len=len(config))
                await self._send_bytes(encode_frame(head, b"", config))
            if video:
                header, video = self._fmp4.message(header, video)
        await self._send_bytes(encode_frame(header, audio, video))

    async def _send_media(self) -> None:
        assert self._media is not None
        now_s = time.monotonic()
        self._metrics.output_lag.observe(self._media.late_s(now_s))
        stamped = self._media.take(now_s)
        header = stamped.header
        video = stamped.frame.video if header.video_len else b""
        # What is decided must not be lost with the socket: it is kept before it is sent.
        texts = [self._keep(event) for event in stamped.before]
        self.ring.add_media(header, stamped.frame.audio, video)
        self._events.extendleft(reversed(stamped.after))
        for text in texts:
            await self._send_text(text)
        await self._send_picture(header, stamped.frame.audio, video)
        if header.flags & Flag.FIRST and header.response in self._audio_since_s:
            since_s = self._audio_since_s.pop(header.response)
            self._admission.observe_first_frame(time.monotonic() - since_s)
        kind = "idle" if header.flags & Flag.IDLE else "speech"
        self._metrics.frames_sent.labels(kind=kind).inc()
        if stamped.frame.video and not header.video_len:
            self._metrics.frames_dropped.labels(reason="slow_client").inc()
        if self._producer is not None:
            self._producer.wake()

    def _tick(self, now_s: float) -> None:
        if self._conversation is None or self._producer is None or self._media is None:
            return
        self.post(*self._conversation.tick(now_s))
        dropped = self._media.dropped_event(now_s)
        if dropped is not None:
            self.post(dropped)
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
                dropped=self._media.dropped,
                degraded=self._producer.degraded,
                num_steps=self._producer.num_steps,
            )
        )
