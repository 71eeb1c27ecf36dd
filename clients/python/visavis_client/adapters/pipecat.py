"""A visavis avatar as a Pipecat video service (the extra `pipecat`).

It stands between the synthesizer and the transport:

    avatar = AvatarVideoService(url="http://127.0.0.1:8000", avatar="clara")
    pipeline = Pipeline([transport.input(), stt, llm, tts, avatar, transport.output()])
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService

from visavis_client.adapters.speech_input import SpeechInput, mono
from visavis_client.client import AvatarClient
from visavis_client.errors import AvatarError
from visavis_client.frames import AvatarFrame, FrameDecoder
from visavis_client.link import DEFAULT_URL
from visavis_client.options import SessionOptions
from visavis_client.session import AvatarSession

# At the end of a pipeline: as long as frames come, what was said is shown to its end.
QUIET_S = 5.0


class AvatarVideoService(AIService):
    """TTSAudioRawFrame in; OutputImageRawFrame and TTSAudioRawFrame out, frame by frame.

    A picture of speech goes out `sync_with_audio`, directly before its 40 ms of sound, so that the
    transport keeps them together; idle pictures go out alone. TTSStoppedFrame ends the utterance,
    and goes on downstream after its last frame. InterruptionFrame cancels.

    The avatar's audio is at `rate`, by default the pipeline's `audio_out_sample_rate`; audio of
    another rate is resampled on the way in. `options` are those of `connect`, `service` those of
    AIService.
    """

    def __init__(
        self,
        *,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout_s: float = 30.0,
        options: SessionOptions | None = None,
        avatar: str | None = None,
        rate: int | None = None,
        **service: Any,
    ) -> None:
        super().__init__(**service)
        self._client = AvatarClient(url, token=token, timeout_s=timeout_s)
        self._options: SessionOptions = options.copy() if options is not None else {}
        if avatar is not None:
            self._options["avatar"] = avatar
        self._rate = rate
        self._open = AsyncExitStack()
        self._session: AvatarSession | None = None
        self._speech: SpeechInput | None = None
        self._decoder = FrameDecoder()
        self._resampler = create_stream_resampler()
        self._reading: asyncio.Task[None] | None = None
        self._stopped: deque[TTSStoppedFrame] = deque()
        self._speaking = False
        self._came = asyncio.Event()

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Learn the pipeline's rate."""
        await super().setup(setup)
        if self._rate is None:
            self._rate = setup.audio_out_sample_rate

    async def start(self, frame: StartFrame) -> None:
        """Open the session; a failure is pushed upstream as an error that ends the service."""
        await super().start(frame)
        options = self._options.copy()
        options["rate"] = self._rate or 24_000
        try:
            session = await self._open.enter_async_context(self._client.connect(**options))
        except (AvatarError, OSError) as error:
            await self.push_error(f"no avatar: {error}", error, force_treat_as_permanent=True)
            return
        self._session, self._speech = session, SpeechInput(session)

    async def stop(self, frame: EndFrame) -> None:
        """Let what was said come to its end, then close the session."""
        await super().stop(frame)
        while self._speaking and self._reading is not None and not self._reading.done():
            self._came.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._came.wait()
            except TimeoutError:
                break
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Close the session at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """Close the session, if it still is open."""
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech and its ends out of the stream, pass on everything else."""
        await super().process_frame(frame, direction)
        if self._speech is None:
            await self.push_frame(frame, direction)
        elif isinstance(frame, TTSAudioRawFrame):
            await self._say(frame)
        elif isinstance(frame, TTSStoppedFrame):
            await self._end_utterance(frame, direction)
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt()
            await self.push_frame(frame, direction)
        else:
            await self.push_frame(frame, direction)
            if isinstance(frame, StartFrame):
                # Not before: nothing may overtake the frame that starts the others.
                self._reading = self.create_task(self._read(), "avatar")

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        assert self._speech is not None
        assert self._session is not None
        pcm = mono(frame.audio, frame.num_channels)
        if frame.sample_rate != self._session.rate:
            pcm = await self._resampler.resample(pcm, frame.sample_rate, self._session.rate)
        self._speaking = True
        try:
            await self._speech.send(pcm)
        except AvatarError as error:
            await self.push_error(f"the avatar took no audio: {error}", error)

    async def _end_utterance(self, frame: TTSStoppedFrame, direction: FrameDirection) -> None:
        assert self._speech is not None
        self._stopped.append(frame)
        try:
            said = await self._speech.end()
        except AvatarError as error:
            await self.push_error(f"the avatar took no end: {error}", error)
            said = False
        if not said and frame in self._stopped:
            self._stopped.remove(frame)
            self._speaking = bool(self._stopped)
            await self.push_frame(frame, direction)

    async def _interrupt(self) -> None:
        assert self._speech is not None
        self._stopped.clear()
        self._speaking = False
        try:
            await self._speech.cancel()
        except AvatarError as error:
            await self.push_error(f"the avatar could not be interrupted: {error}", error)

    async def _read(self) -> None:
        assert self._session is not None
        try:
            async for item in self._session.output():
                self._came.set()
                if isinstance(item, AvatarFrame):
                    await self._show(item)
                elif item.status == "failed":
                    await self.push_error(f"the avatar failed: {item.reason}")
                    await self._utterance_over()
        except AvatarError as error:
            await self.push_error(
                f"the avatar is gone: {error}", error, force_treat_as_permanent=True
            )
        finally:
            self._speaking = False
            self._came.set()

    async def _show(self, frame: AvatarFrame) -> None:
        pixels = self._decoder.decode(frame) if frame.video else None
        if pixels is not None:
            height, width = pixels.shape[:2]
            image = OutputImageRawFrame(pixels.tobytes(), (width, height), "RGB")
            image.pts = 1000 * frame.pts_us
            image.sync_with_audio = not frame.idle
            await self.push_frame(image)
        if not frame.idle:
            await self.push_frame(TTSAudioRawFrame(frame.audio, frame.rate, 1))
        if frame.last:
            await self._utterance_over()

    async def _utterance_over(self) -> None:
        if self._stopped:
            await self.push_frame(self._stopped.popleft())
        self._speaking = bool(self._stopped)

    async def _close(self) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            await self.cancel_task(reading)
        self._session = self._speech = None
        await self._open.aclose()
