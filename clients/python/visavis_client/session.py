"""One live avatar: speech in, frames out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection

from visavis_client import wire
from visavis_client.audio import SAMPLE_BYTES, Pcm, as_pcm16, is_pcm
from visavis_client.channel import CLOSE_S, Channel
from visavis_client.errors import AvatarError, ResponseFailedError, ServerError, SessionClosedError
from visavis_client.events import (
    AudioCleared,
    AudioCommitted,
    Event,
    OutputCleared,
    ResponseDone,
    SessionCreated,
    SessionPong,
    SessionUpdated,
)
from visavis_client.flow import FrameQueue, InputCredit
from visavis_client.frames import AvatarFrame, frame_of

PcmSource = Pcm | Iterable[Pcm] | AsyncIterable[Pcm]
# Audio is sent in pieces of this length, so that the avatar starts before a long file is over.
PIECE_S = 0.25
MAX_EVENTS = 256
READER_WAIT_S = 2.0


class AvatarSession:
    """Made by `connect`. All of it belongs to one event loop.

    Errors that belong to a call are raised by it; those that belong to none are raised by the
    iteration over frames; once the session is over, everything raises SessionClosedError.
    """

    def __init__(
        self, socket: ClientConnection, *, max_frames: int = 250, timeout_s: float = 30.0
    ) -> None:
        """Wrap an open socket. `max_frames` bounds the frames that wait to be read, `timeout_s`
        every wait for an answer, in seconds."""
        self._channel = Channel(
            socket, timeout_s=timeout_s, receive=self._receive, finish=self._finish
        )
        self._queue = FrameQueue(max_frames)
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._event_came = asyncio.Event()
        self._created: SessionCreated | None = None
        self._updated: SessionUpdated | None = None
        self._credit: InputCredit | None = None
        self._rate = 16_000
        self._codec = "none"
        self._num_pieces = 0
        self._num_utterances = 0
        self._utterance_open = False
        self._epoch = 0
        self._reader = asyncio.Lock()
        self._feeder: asyncio.Task[None] | None = None

    async def open(self, settings: dict[str, Any]) -> None:
        """Await the greeting and configure the session; `connect` calls it.

        Raises ServerError (`capacity`, `model_loading`, `avatar_not_found`, ...), TimedOutError.
        """
        self._created = await self._channel.greeting()
        updated = await self._channel.ask("session.update", SessionUpdated, session=settings)
        self._accept(updated, self._created)

    def _accept(self, updated: SessionUpdated, created: SessionCreated) -> None:
        self._updated = updated
        self._rate = int(updated.session["input_audio"]["rate"])
        limit_ms = float(created.limits["max_buffered_input_ms"])
        # The server counts a chunk's audio until the chunk is whole, when its frames are here.
        spare_ms = max(limit_ms - float(created.timing["chunk_ms"]), limit_ms / 4)
        self._credit = InputCredit(int(spare_ms * self._rate / 1000))

    # What the server said

    @property
    def created(self) -> SessionCreated:
        """The server's greeting, with its limits."""
        assert self._created is not None
        return self._created

    @property
    def id(self) -> str:
        """The session's id, for the server's log."""
        return self.created.session_id

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force: frame size, codec, audio rate and more."""
        assert self._updated is not None
        return self._updated.session

    @property
    def warnings(self) -> list[str]:
        """Sentences about the avatar's picture."""
        return list(self.settings.get("warnings", []))

    @property
    def rate(self) -> int:
        """Sample rate of the audio, both ways, in Hz."""
        return self._rate

    @property
    def dropped_frames(self) -> int:
        """Idle frames that were dropped here because nobody read them."""
        return self._queue.dropped

    # Speaking

    async def speak(
        self, audio: PcmSource, *, idle: bool = False
    ) -> AsyncGenerator[AvatarFrame, None]:
        """Say one utterance and yield its frames, as they come.

        `audio` is pcm16 (bytes or a numpy array) at the session's rate, or an iterable of pieces
        of it, such as the output of a speech synthesizer. n samples give ceil(n * 25 / rate)
        frames, at the pace of real time. With `idle`, frames from before the first word are yielded
        too, which a video decoder needs. Leaving the loop early cancels the rest.

        Raises ResponseFailedError, ServerError, SessionClosedError, AudioFormatError. When the
        utterance is cancelled, the iteration just ends.
        """
        async with self._sole_reader():
            if self._utterance_open:
                raise AvatarError("an utterance is open", remedy="commit() it before speak()")
            response = self._num_utterances + 1
            self._feeder = asyncio.create_task(self._feed(audio))
            done = False
            try:
                async for item in self._items():
                    if isinstance(item, AvatarFrame):
                        if item.response == response or (idle and item.idle):
                            yield item
                    elif item is None or item.response_index == response:
                        done = True
                        if item is not None and item.status == "failed":
                            raise ResponseFailedError(
                                f"the utterance failed: {item.reason}", remedy="try it again"
                            )
                        return
            finally:
                self._feeder.cancel()
                if not done and self._channel.over is None:
                    with suppress(AvatarError):
                        await self._cancel_all()

    async def _feed(self, audio: PcmSource) -> None:
        """Send the audio of one utterance and its end; what fails goes to who reads the frames."""
        try:
            sent = 0
            async for piece in _pieces(audio):
                data = as_pcm16(piece)
                await self.send_audio(data)
                sent += len(data)
            await self._queue.put_marker(None) if not sent else await self.commit()
        except Exception as error:
            await self._queue.put_marker(error)

    async def send_audio(self, pcm: Pcm) -> None:
        """Append speech to the open utterance: pcm16 at the session's rate, any length.

        Waits while the server's buffer is full; frames must be read meanwhile. Raises TimedOutError
        when it stays full.
        """
        assert self._credit is not None
        data = as_pcm16(pcm)
        limit = min(int(PIECE_S * self._rate), max(1, self._credit.limit // 2))
        step = SAMPLE_BYTES * limit
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if not self._utterance_open:
                self._utterance_open = True
                self._num_utterances += 1
            await self._credit.take(
                self._num_utterances, len(piece) // SAMPLE_BYTES, self._channel.timeout_s
            )
            await self._channel.send(wire.audio_message(piece, self._num_pieces))
            self._num_pieces += 1

    async def commit(self) -> AudioCommitted:
        """End the utterance. Raises ServerError `input_buffer_empty` when nothing was sent."""
        self._utterance_open = False
        return await self._channel.ask("input_audio_buffer.commit", AudioCommitted)

    async def clear(self) -> float:
        """Drop what the engine has not taken of the open utterance; milliseconds dropped."""
        cleared = await self._channel.ask("input_audio_buffer.clear", AudioCleared)
        await self.ping()  # a response that ended by it is reported until then
        return cleared.dropped_ms

    async def cancel(self, response_id: str | None = None) -> None:
        """Barge-in: stop speaking, and drop all frames that were not read yet.

        With an id only that response and later ones end. Never an error.
        """
        if response_id is None:
            await self._cancel_all()
            return
        await self._channel.send_event("response.cancel", response_id=response_id)
        await self.ping()

    async def _cancel_all(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
        # Before the answer: a full queue would hold it back.
        await self._queue.void(self._epoch)
        self._utterance_open = False
        await self._channel.ask("response.cancel", OutputCleared)

    # Frames and events

    async def frames(self, *, idle: bool = True) -> AsyncGenerator[AvatarFrame, None]:
        """All frames from now on, without end; only those of speech without `idle`.

        Raises ServerError for errors that belong to no call, SessionClosedError at the end.
        """
        async with self._sole_reader():
            async for item in self._items():
                if isinstance(item, AvatarFrame) and (idle or not item.idle):
                    yield item

    @asynccontextmanager
    async def _sole_reader(self) -> AsyncIterator[None]:
        """Wait for an iteration that was just left to clean up; there may be one at a time."""
        try:
            async with asyncio.timeout(READER_WAIT_S):
                await self._reader.acquire()
        except TimeoutError:
            raise AvatarError(
                "the frames are being read already", remedy="use one speak() or frames() at a time"
            ) from None
        try:
            yield
        finally:
            self._reader.release()

    async def _items(self) -> AsyncIterator[AvatarFrame | ResponseDone | None]:
        while True:
            try:
                item = await self._queue.get()
            except StopAsyncIteration:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    async def events(self) -> AsyncGenerator[Event, None]:
        """The server's events, from the last 256 on; ends with the session."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._channel.over is not None:
                return
            self._event_came.clear()
            await self._event_came.wait()

    # Other requests

    async def set_state(self, state: Literal["idle", "listening"]) -> None:
        """What the avatar does while it does not speak."""
        await self._channel.send_event("avatar.set_state", state=state)

    async def update(self, **session: Any) -> None:
        """Change `idle` or `on_disconnect`. Raises ServerError `immutable_field` for the rest."""
        updated = await self._channel.ask("session.update", SessionUpdated, session=session)
        self._updated = updated

    async def report_playback(
        self,
        frame: AvatarFrame,
        *,
        buffered_ms: float = 0.0,
        underruns: int = 0,
        skew_ms: float | None = None,
    ) -> None:
        """Say what is on screen now; every 250 to 500 ms, or never.

        From the first report on the server sends no more than its `max_inflight_ms` ahead, and
        `response.done` tells how much was played.
        """
        await self._channel.send_event(
            "playback.update",
            pts_us=frame.pts_us,
            seq=frame.seq,
            buffered_ms=buffered_ms,
            underruns=underruns,
            skew_ms=skew_ms,
        )

    async def ping(self) -> float:
        """Round-trip time in seconds."""
        start_s = time.perf_counter()
        await self._channel.ask("session.ping", SessionPong, t=start_s)
        return time.perf_counter() - start_s

    async def close(self, *, drain: bool = False) -> None:
        """End the session; with `drain`, what was committed is spoken first. Twice is no error.

        Frames that were not read yet can still be read. With `drain` somebody must read frames
        meanwhile.
        """
        if self._channel.over is None:
            with suppress(SessionClosedError):
                await self._channel.send_event("session.close", drain=drain)
        await self._channel.wait_closed(timeout_s=None if drain else CLOSE_S)

    # What comes in

    async def _receive(self, item: Event | wire.Message | ServerError) -> None:
        if isinstance(item, wire.Message):
            await self._on_message(item)
        elif isinstance(item, ServerError):
            await self._queue.put_marker(item)
        else:
            await self._on_event(item)

    async def _on_message(self, message: wire.Message) -> None:
        if message.kind != wire.MEDIA:
            return
        if self._credit is not None:
            self._credit.came_back(message.response, len(message.audio) // SAMPLE_BYTES)
        await self._queue.put(frame_of(message, codec=self._codec, rate=self._rate))

    async def _on_event(self, event: Event) -> None:
        self._events.append(event)
        self._event_came.set()
        match event:
            case SessionUpdated():
                # Set here and not by who asked: the first frame may follow at once.
                self._codec = str(event.session["output"]["video"])
                self._rate = int(event.session["input_audio"]["rate"])
            case OutputCleared():
                self._epoch = event.epoch
                await self._queue.void(event.epoch - 1)
            case ResponseDone():
                if self._credit is not None:
                    self._credit.done(event.response_index)
                if event.response_index == self._num_utterances:
                    self._utterance_open = False
                    if self._feeder is not None and event.status != "completed":
                        self._feeder.cancel()  # else its next piece would begin another one
                await self._queue.put_marker(event)

    async def _finish(self, error: AvatarError | None) -> None:
        await self._queue.end(error)
        self._event_came.set()


async def _pieces(audio: PcmSource) -> AsyncIterator[Pcm]:
    if isinstance(audio, AsyncIterable):
        async for piece in audio:
            yield piece
    elif is_pcm(audio):
        yield audio
    else:
        pieces: Any = audio
        for piece in pieces:
            yield piece
