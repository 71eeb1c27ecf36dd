"""One live avatar: speech in, frames out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection

from visavis_client.audio import Pcm, as_pcm16, is_pcm
from visavis_client.channel import CLOSE_S, Channel
from visavis_client.errors import AvatarError, ResponseFailedError, SessionClosedError
from visavis_client.frames import AvatarFrame
from visavis_client.inbox import Inbox
from visavis_client.options import QUEUE_S, Playback
from visavis_client.outbox import Outbox
from visavis_client.playback import PlaybackReporter
from visavis_client.protocol import (
    AudioClear,
    AudioCleared,
    AudioCommit,
    AudioCommitted,
    EffectiveSettings,
    IdlePolicy,
    OnDisconnect,
    OutputCleared,
    PlaybackUpdate,
    RequestKeyframe,
    ResponseCancel,
    ResponseDone,
    ServerEvent,
    SessionClose,
    SessionCreated,
    SessionPing,
    SessionPong,
    SessionQueued,
    SessionSettings,
    SessionUpdate,
    SessionUpdated,
    SetState,
)
from visavis_client.resume import Reconnector
from visavis_client.server_errors import InputBufferEmptyError
from visavis_client.wire import SAMPLE_BYTES

PcmSource = Pcm | Iterable[Pcm] | AsyncIterable[Pcm]
# Audio is sent in pieces of this length, so that the avatar starts before a long file is over.
PIECE_S = 0.25
READER_WAIT_S = 2.0


class AvatarSession:
    """Made by `connect`. All of it belongs to one event loop.

    Errors that belong to a call are raised by it; those that belong to none are raised by the
    iteration over frames; once the session is over, everything raises SessionClosedError.
    """

    def __init__(
        self,
        socket: ClientConnection,
        *,
        max_frames: int = 250,
        timeout_s: float = 30.0,
        playback: Playback = "read",
        reconnector: Reconnector | None = None,
        on_queue: Callable[[SessionQueued], None] | None = None,
    ) -> None:
        """Wrap an open socket. `max_frames` bounds the frames that wait to be read, `timeout_s`
        every wait for an answer, in seconds."""
        outbox = Outbox()
        self._inbox = Inbox(max_frames, outbox, on_queue=on_queue)
        self._channel = Channel(
            socket,
            outbox=outbox,
            timeout_s=timeout_s,
            receive=self._inbox.receive,
            finish=self._inbox.finish,
            reconnector=reconnector,
        )
        self._playback: Playback = playback
        self._reporter = PlaybackReporter(self._inbox.playback, self._channel.tell)
        self._reporting: asyncio.Task[None] | None = None
        self._created: SessionCreated | None = None
        self._utterance_samples = 0
        self._utterance_open = False
        self._cancels = 0
        self._reader = asyncio.Lock()
        self._feeder: asyncio.Task[None] | None = None

    async def open(self, settings: SessionSettings, *, queue_timeout_s: float = QUEUE_S) -> None:
        """Await the greeting and configure the session; `connect` calls it.

        Raises ServerError (`capacity`, `model_loading`, `avatar_not_found`, ...), TimedOutError.
        """
        self._created = await self._channel.greeting(queue_timeout_s)
        await self._channel.ask(
            SessionUpdate(session=settings), SessionUpdated, queue_timeout_s=queue_timeout_s
        )
        if self._playback == "read":
            self._reporting = asyncio.create_task(self._reporter.run())

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
    def settings(self) -> EffectiveSettings:
        """The settings in force: frame size, codec, audio rate and more."""
        return self._inbox.settings

    @property
    def warnings(self) -> list[str]:
        """Sentences about the avatar's picture."""
        return list(self.settings.warnings)

    @property
    def rate(self) -> int:
        """Sample rate of the audio, both ways, in Hz."""
        return self.settings.input_audio.rate

    @property
    def codec_config(self) -> bytes | None:
        """With `video="fmp4"`, the initialisation segment that comes before all fragments."""
        return self._inbox.codec_config

    @property
    def dropped_frames(self) -> int:
        """Idle frames that were dropped here because nobody read them."""
        return self._inbox.queue.dropped

    @property
    def resumes(self) -> int:
        """How often the connection was lost and the session went on."""
        return self._channel.resumes

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
            response = self._inbox.num_utterances + 1
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
                        await self._cancel_all(None)

    async def _feed(self, audio: PcmSource) -> None:
        """Send the audio of one utterance and its end; what fails goes to who reads the frames."""
        try:
            sent = 0
            async for piece in _pieces(audio):
                data = as_pcm16(piece)
                await self.send_audio(data)
                sent += len(data)
            await self._inbox.queue.put_marker(None) if not sent else await self.commit()
        except Exception as error:
            await self._inbox.queue.put_marker(error)

    async def send_audio(self, pcm: Pcm) -> None:
        """Append speech to the open utterance: pcm16 at the session's rate, any length.

        Waits while the server's buffer is full; frames must be read meanwhile. What a cancel finds
        still waiting is dropped. Raises TimedOutError when the buffer stays full.
        """
        credit, cancels = self._inbox.credit, self._cancels
        data = as_pcm16(pcm)
        limit = min(int(PIECE_S * self.rate), max(1, credit.limit // 2))
        step = SAMPLE_BYTES * limit
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if not self._utterance_open:
                self._utterance_open, self._utterance_samples = True, 0
                self._inbox.begin_utterance(self._utterance_ended)
            samples = len(piece) // SAMPLE_BYTES
            utterance = self._inbox.num_utterances
            await credit.take(utterance, samples, self._channel.timeout_s)
            await asyncio.sleep(self._inbox.input_rate.wait_s(samples / self.rate))
            if cancels != self._cancels:
                credit.done(utterance)
                return
            self._utterance_samples += samples
            await self._channel.send_audio(piece)

    def _utterance_ended(self, status: str) -> None:
        self._utterance_open = False
        if self._feeder is not None and status != "completed":
            self._feeder.cancel()  # else its next piece would begin another one

    async def commit(self) -> AudioCommitted:
        """End the utterance. Raises InputBufferEmptyError when nothing was sent."""
        self._utterance_open = False
        resumes, samples = self._channel.resumes, self._utterance_samples
        try:
            return await self._channel.ask(AudioCommit(), AudioCommitted)
        except InputBufferEmptyError:
            if self._channel.resumes == resumes or not samples:
                raise
            # It was taken before the connection was lost, and its answer was lost with it.
            return AudioCommitted(response_id="", duration_ms=1000 * samples / self.rate)

    async def clear(self) -> float:
        """Drop what the engine has not taken of the open utterance; milliseconds dropped."""
        cleared = await self._channel.ask(AudioClear(), AudioCleared)
        await self.ping()  # a response that ended by it is reported until then
        return cleared.dropped_ms

    async def cancel(self, response_id: str | None = None, *, fade_ms: int | None = None) -> None:
        """Barge-in: stop speaking, and drop all frames that were not read yet.

        With an id only that response and later ones end. `fade_ms` tells the server that the
        player fades out for so long, and the face goes on from there. Never an error.
        """
        if response_id is None:
            await self._cancel_all(fade_ms)
            return
        await self._channel.tell(ResponseCancel(response_id=response_id, fade_ms=fade_ms))
        await self.ping()

    async def _cancel_all(self, fade_ms: int | None) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
        self._cancels += 1
        self._utterance_open = False
        # Before the answer: a full queue would hold it back.
        await self._inbox.void()
        await self._channel.ask(ResponseCancel(fade_ms=fade_ms), OutputCleared)

    # Frames and events

    async def frames(self, *, idle: bool = True) -> AsyncGenerator[AvatarFrame, None]:
        """All frames from now on, without end; only those of speech without `idle`.

        Raises ServerError for errors that belong to no call, SessionClosedError at the end.
        """
        async for item in self.output():
            if isinstance(item, AvatarFrame) and (idle or not item.idle):
                yield item

    async def output(self) -> AsyncGenerator[AvatarFrame | ResponseDone, None]:
        """All frames, and the ends of utterances between them, in order. Raises as `frames`."""
        async with self._sole_reader():
            async for item in self._items():
                if item is not None:
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
                item = await self._inbox.queue.get()
            except StopAsyncIteration:
                return
            if isinstance(item, Exception):
                raise item
            yield item
            if isinstance(item, AvatarFrame) and item.last and self._playback == "read":
                # Not at the next tick: the server calls the response done when it was played.
                with suppress(SessionClosedError):
                    await self._reporter.report()

    def events(self) -> AsyncGenerator[ServerEvent, None]:
        """The server's events, from the last 256 on; ends with the session."""
        return self._inbox.events()

    # Other requests

    async def set_state(self, state: Literal["idle", "listening"]) -> None:
        """What the avatar does while it does not speak."""
        await self._channel.tell(SetState(state=state))

    async def update(
        self,
        *,
        idle: IdlePolicy | None = None,
        on_disconnect: OnDisconnect | None = None,
        **others: Any,
    ) -> None:
        """Change `idle` or `on_disconnect`. Raises ImmutableFieldError for the rest."""
        session = SessionSettings(idle=idle, on_disconnect=on_disconnect, **others)
        await self._channel.ask(SessionUpdate(session=session), SessionUpdated)

    async def request_keyframe(self) -> None:
        """Ask for a frame that can be decoded without earlier ones."""
        await self._channel.tell(RequestKeyframe())

    async def report_playback(
        self,
        frame: AvatarFrame,
        *,
        buffered_ms: float = 0.0,
        underruns: int = 0,
        skew_ms: float | None = None,
    ) -> None:
        """Say what is on screen now; every 250 to 500 ms, by a session with playback="reported".

        The server sends no more than its `max_inflight_ms` ahead of it, and `response.done` tells
        how much was played.
        """
        update = PlaybackUpdate(
            pts_us=frame.pts_us,
            seq=frame.seq,
            buffered_ms=buffered_ms,
            underruns=underruns,
            skew_ms=skew_ms,
        )
        await self._channel.tell(update)

    async def ping(self) -> float:
        """Round-trip time in seconds."""
        start_s = time.perf_counter()
        await self._channel.ask(SessionPing(t=start_s), SessionPong)
        return time.perf_counter() - start_s

    async def close(self, *, drain: bool = False) -> None:
        """End the session; with `drain`, what was committed is spoken first. Twice is no error.

        Frames that were not read yet can still be read. With `drain` somebody must read frames
        meanwhile.
        """
        if self._channel.over is None:
            with suppress(SessionClosedError):
                await self._channel.tell(SessionClose(drain=drain))
        await self._channel.wait_closed(timeout_s=None if drain else CLOSE_S)
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)


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
