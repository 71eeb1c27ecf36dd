"""Live speech from the sound card; needs `sounddevice` (the extra `microphone`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from visavis_client.errors import MicrophoneError, MissingExtraError

BLOCK_S = 0.04
Source = Callable[..., Any]


class Microphone:
    """An asynchronous iterator over pcm16 of 40 ms each, for `session.speak()`.

        async with Microphone(rate=session.rate) as microphone:
            async for frame in session.speak(microphone):
                ...

    `stop()` ends the iteration, and with it the utterance. Blocks that nobody takes are bounded:
    the oldest give way, and `dropped` counts them. `level` is the loudness of the last block, 0 to
    1, for a meter or a gate. With loudspeakers instead of headphones the microphone hears the
    avatar: mute it while the avatar speaks, or cancel the echo before.

    device: sounddevice's number or name. source: called like sounddevice.RawInputStream.
    """

    def __init__(
        self,
        *,
        rate: int = 16_000,
        device: int | str | None = None,
        max_blocks: int = 250,
        source: Source | None = None,
    ) -> None:
        self.rate = rate
        self.dropped = 0
        self.level = 0.0
        self._device = device
        self._max_blocks = max_blocks
        self._source = source
        self._stream: Any = None
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        """Open the sound card. Raises MissingExtraError, and MicrophoneError when it refuses."""
        source = self._source if self._source is not None else _sound_card()
        self._loop = asyncio.get_running_loop()
        try:
            self._stream = source(
                samplerate=self.rate,
                blocksize=round(BLOCK_S * self.rate),
                device=self._device,
                channels=1,
                dtype="int16",
                callback=self._on_block,
            )
            self._stream.start()
        except Exception as error:  # PortAudioError is known only where the library is
            raise MicrophoneError(
                f"the microphone cannot be opened: {error}",
                remedy="choose a device of `python -m sounddevice`, or another rate",
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the sound card and end the iteration after what was heard. Twice is no error."""
        if self._stream is not None:
            self._stream.stop()
            self._stream.close()
            self._stream = None
            self._blocks.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (block := await self._blocks.get()) is not None:
            yield block

    def _on_block(self, data: Any, frames: int, time: Any, status: Any) -> None:
        """Called by the sound card's own thread."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, bytes(data))

    def _take(self, block: bytes) -> None:
        if self._stream is None:
            return
        samples = memoryview(block).cast("h")
        self.level = max((abs(sample) for sample in samples), default=0) / 32768
        while self._blocks.qsize() >= self._max_blocks:
            self._blocks.get_nowait()
            self.dropped += 1
        self._blocks.put_nowait(block)


def _sound_card() -> Source:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError(
            "the microphone", library="sounddevice", extra="microphone"
        ) from error
    except OSError as error:
        raise MicrophoneError(
            f"PortAudio is missing: {error}", remedy="on Debian: apt-get install libportaudio2"
        ) from error
    source: Source = sounddevice.RawInputStream
    return source
