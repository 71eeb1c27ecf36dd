"""The same without asyncio: every call blocks, an event loop runs in a thread behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Literal, TypeVar, Unpack

from visavis_client.audio import Pcm, is_pcm
from visavis_client.client import AvatarClient
from visavis_client.frames import AvatarFrame
from visavis_client.link import DEFAULT_URL, split_url
from visavis_client.options import SessionOptions
from visavis_client.protocol import (
    AudioCommitted,
    EffectiveSettings,
    IdlePolicy,
    OnDisconnect,
    ResponseDone,
    ServerEvent,
    SessionCreated,
)
from visavis_client.rest import Rest
from visavis_client.retry import Retry
from visavis_client.session import AvatarSession

T = TypeVar("T")
_END = object()


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="visavis-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end; an interrupt of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        """Take from an asynchronous generator; leaving early closes it."""
        try:
            while True:
                item = self.run(_next(source))
                if item is _END:
                    return
                yield item
        finally:
            self.run(source.aclose())

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncAvatarSession:
    """A live avatar for code without asyncio; see AvatarSession for each method.

    One thread iterates frames; `send_audio`, `commit` and `cancel` may come from another.
    """

    def __init__(self, session: AvatarSession, loop: _LoopThread) -> None:
        self._session = session
        self._loop = loop

    @property
    def created(self) -> SessionCreated:
        """The server's greeting, with its limits."""
        return self._session.created

    @property
    def id(self) -> str:
        """The session's id, for the server's log."""
        return self._session.id

    @property
    def settings(self) -> EffectiveSettings:
        """The settings in force."""
        return self._session.settings

    @property
    def warnings(self) -> list[str]:
        """Sentences about the avatar's picture."""
        return self._session.warnings

    @property
    def rate(self) -> int:
        """Sample rate of the audio in Hz."""
        return self._session.rate

    @property
    def codec_config(self) -> bytes | None:
        """With `video="fmp4"`, the initialisation segment."""
        return self._session.codec_config

    @property
    def dropped_frames(self) -> int:
        """Idle frames that were dropped here because nobody read them."""
        return self._session.dropped_frames

    @property
    def resumes(self) -> int:
        """How often the connection was lost and the session went on."""
        return self._session.resumes

    def speak(self, audio: Pcm | Iterable[Pcm], *, idle: bool = False) -> Iterator[AvatarFrame]:
        """Say one utterance and yield its frames, as they come."""
        pieces: Any = audio
        source = audio if is_pcm(audio) else _in_thread(iter(pieces))
        return self._loop.iterate(self._session.speak(source, idle=idle))

    def send_audio(self, pcm: Pcm) -> None:
        """Append speech to the open utterance."""
        self._loop.run(self._session.send_audio(pcm))

    def commit(self) -> AudioCommitted:
        """End the utterance."""
        return self._loop.run(self._session.commit())

    def clear(self) -> float:
        """Drop what the engine has not taken of the open utterance; milliseconds dropped."""
        return self._loop.run(self._session.clear())

    def cancel(self, response_id: str | None = None, *, fade_ms: int | None = None) -> None:
        """Stop speaking."""
        self._loop.run(self._session.cancel(response_id, fade_ms=fade_ms))

    def frames(self, *, idle: bool = True) -> Iterator[AvatarFrame]:
        """All frames from now on, without end."""
        return self._loop.iterate(self._session.frames(idle=idle))

    def output(self) -> Iterator[AvatarFrame | ResponseDone]:
        """All frames, and the ends of utterances between them."""
        return self._loop.iterate(self._session.output())

    def events(self) -> Iterator[ServerEvent]:
        """The server's events."""
        return self._loop.iterate(self._session.events())

    def set_state(self, state: Literal["idle", "listening"]) -> None:
        """What the avatar does while it does not speak."""
        self._loop.run(self._session.set_state(state))

    def update(
        self, *, idle: IdlePolicy | None = None, on_disconnect: OnDisconnect | None = None
    ) -> None:
        """Change what may be changed."""
        self._loop.run(self._session.update(idle=idle, on_disconnect=on_disconnect))

    def request_keyframe(self) -> None:
        """Ask for a frame that can be decoded without earlier ones."""
        self._loop.run(self._session.request_keyframe())

    def report_playback(self, frame: AvatarFrame, **details: Any) -> None:
        """Say what is on screen now."""
        self._loop.run(self._session.report_playback(frame, **details))

    def ping(self) -> float:
        """Round-trip time in seconds."""
        return self._loop.run(self._session.ping())

    def close(self, *, drain: bool = False) -> None:
        """End the session."""
        self._loop.run(self._session.close(drain=drain))


class SyncAvatarClient:
    """See AvatarClient. `rest` has all the HTTP requests, blocking."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retry: Retry | None = None,
    ) -> None:
        retry = retry if retry is not None else Retry()
        self._client = AvatarClient(url, token=token, timeout_s=timeout_s, retry=retry)
        self.rest = Rest(split_url(url)[0], token=token, timeout_s=timeout_s, retry=retry)

    @contextmanager
    def connect(self, **options: Unpack[SessionOptions]) -> Iterator[SyncAvatarSession]:
        """A live session; see SessionOptions for the arguments."""
        entering: AbstractAsyncContextManager[AvatarSession] = self._client.connect(**options)
        loop = _LoopThread()
        try:
            session = loop.run(_enter(entering))
            try:
                yield SyncAvatarSession(session, loop)
            finally:
                loop.run(_leave(entering))
        finally:
            loop.stop()


def connect_sync(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    timeout_s: float = 30.0,
    retry: Retry | None = None,
    **options: Unpack[SessionOptions],
) -> AbstractContextManager[SyncAvatarSession]:
    """A live session for code without asyncio; see `connect`."""
    client = SyncAvatarClient(url, token=token, timeout_s=timeout_s, retry=retry)
    return client.connect(**options)


async def _enter(manager: AbstractAsyncContextManager[AvatarSession]) -> AvatarSession:
    return await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[AvatarSession]) -> None:
    await manager.__aexit__(None, None, None)


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source, _END)  # type: ignore[arg-type]


async def _in_thread(pieces: Iterator[Pcm]) -> AsyncIterator[Pcm]:
    """Pieces that may take time to make, such as a synthesizer's."""
    while True:
        piece: Any = await asyncio.to_thread(next, pieces, _END)
        if piece is _END:
            return
        yield piece
