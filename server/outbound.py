"""The sending half of a session: events at once, media at its time, everything bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.errors import CLOSE_CODES, ErrorCode, ProtocolError
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.media_source import MediaSource
from visavis.server.metrics import Metrics
from visavis.server.pacing import Pacer
from visavis.server.protocol import Flag, Header, Kind, encode_frame
from visavis.server.sent_ring import RingState, SentEvent, SentMedia, SentRing

if TYPE_CHECKING:
    from visavis.server.producer import Producer

# A client that makes the server say more than this without reading is not worth a place.
MAX_EVENTS = 1024
TICK_S = 0.1
# How long the last words to a client that does not read may take.
FAREWELL_S = 1.0
# Numbers kept for what is still said here to a client whose session goes on elsewhere.
FAREWELL_EVENTS = 8
# Told again or worthless later: not kept for a client that comes back.
_PASSING = (
    ev.SessionStats,
    ev.SessionPong,
    ev.AudioAppended,
    ev.SessionLoading,
    ev.SessionResumed,
)
# Said also to a client that is closed for what it does not read.
_OWED = (ev.ResponseCreated, ev.ResponseStarted, ev.ResponseDone, ev.ErrorEvent)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundState:
    """What was sent lately, and what was to be: events that wait, as JSON without their numbers."""

    ring: RingState
    num_events: int
    waiting: tuple[str, ...]


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
        self.ring = SentRing()
        self.num_events = 0
        self._socket = socket
        self._config = config
        self._metrics = metrics
        self._admission = admission
        self._on_slow = on_slow or self.close_with
        self._overflowed = False
        self._had: int | None = None
        self._unsent: str | None = None
        self._events: deque[ev.ServerEvent] = deque()
        self._replay: deque[SentEvent | SentMedia] = deque()
        self._closing: tuple[int, str] | None = None
        self._released = False
        self._held = False
        self._parting: tuple[ev.ServerEvent, ProtocolError] | None = None
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
        self._socket = socket
        self._released = self._held = False
        self._parting = None
        self._had = had
        # One of an earlier connection, which was lost before it could be said, is no longer true.
        waiting = [event for event in self._events if not isinstance(event, ev.SessionResumed)]
        self._events = deque([first, *waiting])
        self._replay.clear()
        self._replay.extend(replay)
        if self._fmp4 is not None:
            self._fmp4.restart()
        self._wake.set()

    def hold(self) -> None:
        """Send nothing and decide nothing, until `rebind` or the end."""
        self._held = True

    def save(self) -> OutboundState:
        """A copy, to go on with it elsewhere; what waits is forgotten here."""
        waiting = tuple(ev.encode_event(event) for event in self._events)
        self._events.clear()
        num_events = self.num_events + FAREWELL_EVENTS
        return OutboundState(ring=self.ring.save(), num_events=num_events, waiting=waiting)

    def load(self, state: OutboundState) -> None:
        """Go on from a copy; the numbers of events go on, too."""
        self.ring = SentRing.load(state.ring)
        self.num_events = state.num_events
        self._events.extend(ev.decode_server_event(text) for text in state.waiting)

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
        for item in items:
            if isinstance(item, ev.ResponseCreated):
                self._audio_since_s[item.response_index] = time.monotonic()
            elif isinstance(item, ev.ResponseDone):
                self._audio_since_s.pop(item.response_index, None)
        self._events.extend(items)
        if self._overflowed:
            self._keep_owed()
        elif len(self._events) > MAX_EVENTS:
            self._overflowed = True
            self._keep_owed()
            self._on_slow(
                ProtocolError(
                    ErrorCode.SLOW_CLIENT,
                    f"{MAX_EVENTS:,} events wait to be read; read what the server sends",
                )
            )
        self._wake.set()

    def _keep_owed(self) -> None:
        """Forget what waits, but not what every client gets: responses' ends, and errors."""
        owed = [event for event in self._events if isinstance(event, _OWED)]
        self._events.clear()
        self._events.extend(owed)

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
                    wait_s = self._media.wait_s(time.monotonic())
                if wait_s is None or wait_s > 0:
                    await self._wait(TICK_S if wait_s is None else wait_s)
                else:
                    await self._send_media()
        except TimeoutError:  # which is an OSError, too
            await self._give_up()
        except (WebSocketDisconnect, RuntimeError, OSError):
            # Starlette says RuntimeError for a socket that is closed already.
            self.end_reason = "client_left"

    async def _send_said(self) -> None:
        if self._replay:
            await self._send_again()
        while self._events:
            await self._send_event(self._events.popleft())

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
        self._overflowed = True
        self._keep_owed()
        with contextlib.suppress(TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(FAREWELL_S):
                if self._unsent is not None:
                    await self._socket.send_text(self._unsent)
                while self._events:
                    await self._socket.send_text(self._keep(self._events.popleft()))
        await self._close(*self._closing)

    async def _part(self, warning: ev.ServerEvent, error: ProtocolError) -> None:
        self._metrics.errors.labels(code=error.code).inc()
        for event in (warning, ev.error_event(error)):
            await self._send_text(self._number(event))
        await self._close(error.spec.close or 1011, error.code)

    async def _close(self, code: int, reason: str) -> None:
        assert code in CLOSE_CODES
        self.end_reason = reason
        with contextlib.suppress(TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(1.0):
                await self._socket.close(code, reason)

    async def _send_text(self, text: str) -> None:
        self._unsent = text
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_text(text)
        self._unsent = None
        self._metrics.ws_bytes.labels(dir="out").inc(len(text))

    async def _send_bytes(self, message: bytes) -> None:
        async with asyncio.timeout(self._config.slow_client_s):
            await self._socket.send_bytes(message)
        self._metrics.ws_bytes.labels(dir="out").inc(len(message))

    def _keep(self, event: ev.ServerEvent) -> str:
        """Number an event and remember it for a client that comes back."""
        text = self._number(event)
        if not isinstance(event, _PASSING):
            self.ring.add_event(self.num_events, text)
        return text

    def _number(self, event: ev.ServerEvent) -> str:
        self.num_events += 1
        event.event_id = f"evt_{self.num_events}"
        if isinstance(event, ev.SessionResumed):
            # Whoever has this one, and then loses the connection, has none of what follows.
            had = "resumed" if self._had is None else self._had
            event.event_id = f"evt_{had}_{self.num_events}"
        return ev.encode_event(event)

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
            self._first_frame(header.response)
        kind = "idle" if header.flags & Flag.IDLE else "speech"
        self._metrics.frames_sent.labels(kind=kind).inc()
        if stamped.frame.late or (stamped.frame.video and not header.video_len):
            reason = "late" if stamped.frame.late else "slow_client"
            self._metrics.frames_dropped.labels(reason=reason).inc()
        if self._producer is not None:
            self._producer.wake()

    def _first_frame(self, response: int) -> None:
        """It went out."""
        took_s = time.monotonic() - self._audio_since_s.pop(response)
        self._admission.observe_first_frame(took_s)
        self._metrics.tracing.record(
            "visavis.first_frame",
            took_s,
            {"visavis.response": response, "gen_ai.server.time_to_first_chunk": took_s},
        )

    def _tick(self, now_s: float) -> None:
        if self._conversation is None or self._producer is None or self._media is None:
            return
        self.post(*self._conversation.tick(now_s))
        self.post(*self._media.dropped_events(now_s))
        if now_s - self._stats_s < self._config.stats_every_s:
            return
        self._stats_s = now_s
        self.post(self._producer.session_stats(dropped=self._media.dropped))
