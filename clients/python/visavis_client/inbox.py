"""What comes in on a session: frames into their queue, events into theirs, and what they change."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from visavis_client import wire
from visavis_client.errors import AvatarError, ServerError
from visavis_client.flow import FrameQueue, InputCredit, InputRate
from visavis_client.frames import FPS, frame_of
from visavis_client.outbox import Outbox
from visavis_client.protocol import (
    EffectiveSettings,
    Kind,
    OutputCleared,
    PlaybackUpdate,
    ResponseDone,
    ServerEvent,
    SessionCreated,
    SessionQueued,
    SessionResumed,
    SessionUpdated,
)

MAX_EVENTS = 256


class Inbox:
    """Filled by the channel, emptied by the session. Belongs to one event loop."""

    def __init__(
        self,
        max_frames: int,
        outbox: Outbox,
        *,
        on_queue: Callable[[SessionQueued], None] | None = None,
    ) -> None:
        self.queue = FrameQueue(max_frames)
        self.credit = InputCredit(0)
        self.input_rate = InputRate(None, 0.0)
        self.codec_config: bytes | None = None
        self.num_utterances = 0
        self._outbox = outbox
        self._settings: EffectiveSettings | None = None
        self._created: SessionCreated | None = None
        self._events: deque[ServerEvent] = deque(maxlen=MAX_EVENTS)
        self._event_came = asyncio.Event()
        self._on_end: Callable[[str], None] = lambda status: None
        self._epoch = 0
        self._last_seq = 0
        self._gap = False
        self._over = False
        self._on_queue = on_queue

    @property
    def settings(self) -> EffectiveSettings:
        """The settings in force; only after session.updated."""
        assert self._settings is not None
        return self._settings

    def begin_utterance(self, on_end: Callable[[str], None]) -> None:
        """Audio of another utterance follows; `on_end` is called with its status."""
        self.num_utterances += 1
        self._on_end = on_end

    async def void(self) -> None:
        """Discard the frames of this epoch, also those that still come."""
        await self.queue.void(self._epoch)

    def playback(self) -> PlaybackUpdate | None:
        """What was read so far, for the server."""
        position_us = self.queue.position_us
        if position_us is None:
            return None
        buffered_ms = 1000 * len(self.queue) / FPS
        return PlaybackUpdate(pts_us=position_us, seq=self._last_seq, buffered_ms=buffered_ms)

    async def events(self) -> AsyncGenerator[ServerEvent, None]:
        """All events, from the last MAX_EVENTS on."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._over:
                return
            self._event_came.clear()
            await self._event_came.wait()

    async def receive(self, item: ServerEvent | wire.Message | ServerError) -> None:
        """Take what the channel has read."""
        if isinstance(item, wire.Message):
            await self._on_message(item)
        elif isinstance(item, ServerError):
            await self.queue.put_marker(item)
        else:
            await self._on_event(item)

    async def finish(self, error: AvatarError | None) -> None:
        """Nothing comes any more."""
        self._over = True
        await self.queue.end(error)
        self._event_came.set()

    async def _on_message(self, message: wire.Message) -> None:
        if message.kind == Kind.CODEC_CONFIG:
            self.codec_config = message.video
        if message.kind not in (Kind.MEDIA, Kind.FMP4):
            return
        self.credit.came_back(message.response, len(message.audio) // wire.SAMPLE_BYTES)
        self._forget_sent()
        self._last_seq = message.seq
        output = self.settings.output
        frame = frame_of(message, codec=output.video, rate=output.audio_rate, gap=self._gap)
        self._gap = False
        await self.queue.put(frame)

    async def _on_event(self, event: ServerEvent) -> None:
        self._events.append(event)
        self._event_came.set()
        match event:
            case SessionQueued():
                if self._on_queue is not None:
                    self._on_queue(event)
            case SessionCreated():
                self._created = event
            case SessionUpdated():
                # Set here and not by who asked: the first frame may follow at once.
                self._accept(event.session)
            case OutputCleared():
                self._epoch = event.epoch
                await self.queue.void(event.epoch - 1)
            case ResponseDone():
                await self._on_done(event)
            case SessionResumed():
                await self._on_resumed(event)

    def _forget_sent(self) -> None:
        self._outbox.keep_at_most(self.credit.outstanding)

    def _accept(self, settings: EffectiveSettings) -> None:
        self._settings = settings
        if self._created is not None and not self.credit.limit:
            limit_ms = float(self._created.limits.max_buffered_input_ms)
            # The server counts a chunk's audio until the chunk is whole, when its frames are here.
            spare_ms = max(limit_ms - self._created.timing.chunk_ms, limit_ms / 4)
            self.credit.limit = int(spare_ms * settings.input_audio.rate / 1000)
            self.input_rate = InputRate(self._created.limits.max_input_rate, limit_ms / 1000)

    async def _on_done(self, event: ResponseDone) -> None:
        self.credit.done(event.response_index)
        self._forget_sent()
        if event.response_index == self.num_utterances:
            self._on_end(event.status)
        await self.queue.put_marker(event)

    async def _on_resumed(self, event: SessionResumed) -> None:
        if event.epoch > self._epoch:
            self._epoch = event.epoch
            await self.queue.void(event.epoch - 1)
        if event.lost_frames:
            self._gap = True
            self.credit.lost(event.lost_frames * self.settings.input_audio.rate // FPS)
