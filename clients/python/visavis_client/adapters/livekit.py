"""A visavis avatar as the video generator of a LiveKit avatar worker (the extra `livekit`).

async with connect(url, avatar="clara", rate=24_000) as session:
    generator = AvatarVideoGenerator(session)
    runner = AvatarRunner(
        room,
        audio_recv=DataStreamAudioReceiver(room),
        video_gen=generator,
        options=generator.options,
    )
    await runner.start()
    await runner.wait_for_complete()
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from visavis_client.adapters.speech_input import SpeechInput, mono
from visavis_client.frames import AvatarFrame, FrameDecoder
from visavis_client.protocol import ResponseDone
from visavis_client.session import AvatarSession


class AvatarVideoGenerator(VideoGenerator):
    """Audio of the agent in, frames with their sound out, for `AvatarRunner`.

    Each frame of speech gives a VideoFrame and the AudioFrame that belongs to it, at the session's
    rate; idle frames give a VideoFrame alone, so that they count for no playback. AudioSegmentEnd
    follows the last frame of a segment, once for each, also when the engine failed; a segment that
    was cleared has none, for the runner reports it as interrupted.

    `session` needs `video="jpeg"` or `"h264"`, and must not be read elsewhere. Its rate may be
    another one than the agent's: audio is resampled on the way in.
    """

    def __init__(self, session: AvatarSession) -> None:
        self._session = session
        self._speech = SpeechInput(session)
        self._decoder = FrameDecoder()
        self._resampler: rtc.AudioResampler | None = None
        self._resampled_from = 0
        self._empty_segments = 0
        self._ended_response = 0

    @property
    def options(self) -> AvatarOptions:
        """What AvatarRunner wants to know of the media."""
        output = self._session.settings.output
        return AvatarOptions(
            video_width=output.width,
            video_height=output.height,
            video_fps=output.fps,
            audio_sample_rate=output.audio_rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Speech of the open segment, or its end. Waits while the server's buffer is full."""
        if isinstance(frame, AudioSegmentEnd):
            await self._speech.send(self._rest())
            if not await self._speech.end():
                self._empty_segments += 1
            return
        pcm = mono(bytes(frame.data), frame.num_channels)
        await self._speech.send(self._at_our_rate(pcm, frame.sample_rate))

    async def clear_buffer(self) -> None:
        """Barge-in."""
        self._resampler = None
        await self._speech.cancel()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Frames without end. Raises SessionClosedError when the server ends the session."""
        async for item in self._session.output():
            if isinstance(item, ResponseDone):
                if item.status == "failed" and item.response_index > self._ended_response:
                    self._ended_response = item.response_index
                    yield AudioSegmentEnd()
                continue
            while self._empty_segments:
                # The agent waits for the end of every segment, also of one without sound.
                self._empty_segments -= 1
                yield AudioSegmentEnd()
            picture = self._picture(item)
            if picture is not None:
                yield picture
            if not item.idle:
                yield rtc.AudioFrame(item.audio, item.rate, 1, len(item.audio) // 2)
            if item.last:
                self._ended_response = item.response
                yield AudioSegmentEnd()

    def _picture(self, frame: AvatarFrame) -> rtc.VideoFrame | None:
        pixels = self._decoder.decode(frame) if frame.video else None
        if pixels is None:
            return None
        height, width = pixels.shape[:2]
        return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, pixels.tobytes())

    def _at_our_rate(self, pcm: bytes, rate: int) -> bytes:
        if rate == self._session.rate:
            return pcm
        if self._resampler is None or self._resampled_from != rate:
            self._resampler = rtc.AudioResampler(rate, self._session.rate)
            self._resampled_from = rate
        return _joined(self._resampler.push(bytearray(pcm)))

    def _rest(self) -> bytes:
        """What the resampler holds back; the next segment gets a new one."""
        resampler, self._resampler = self._resampler, None
        return _joined(resampler.flush()) if resampler is not None else b""


def _joined(frames: list[Any]) -> bytes:
    return b"".join(bytes(frame.data) for frame in frames)
