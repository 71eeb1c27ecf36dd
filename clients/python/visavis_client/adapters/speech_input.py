"""Speech from a framework into a session: one channel, and nothing of it after a cancel."""

from __future__ import annotations

import asyncio

from visavis_client.audio import Pcm
from visavis_client.server_errors import InputBufferEmptyError
from visavis_client.session import AvatarSession


class SpeechInput:
    """Sends in order, one caller at a time; a cancel drops whatever waits for its turn.

    Without that, a framework that pushes from one task and interrupts from another would have the
    rest of what it pushed become the next utterance.
    """

    def __init__(self, session: AvatarSession) -> None:
        self._session = session
        self._turn = asyncio.Lock()
        self._generation = 0

    async def send(self, pcm: Pcm) -> None:
        """Append pcm16 at the session's rate."""
        generation = self._generation
        async with self._turn:
            if generation == self._generation:
                await self._session.send_audio(pcm)

    async def end(self) -> bool:
        """End the utterance; False when there was none."""
        generation = self._generation
        async with self._turn:
            if generation != self._generation:
                return False
            try:
                await self._session.commit()
            except InputBufferEmptyError:
                return False
            return True

    async def cancel(self) -> None:
        """Stop what is said, and forget what waits to be sent."""
        self._generation += 1
        await self._session.cancel()


def mono(pcm: bytes, channels: int) -> bytes:
    """The mean of interleaved channels of pcm16; needs numpy for more than one."""
    if channels == 1:
        return pcm
    import numpy as np

    samples = np.frombuffer(pcm, "<i2").reshape(-1, channels).astype(np.int32)
    return bytes((samples.sum(axis=1) // channels).astype("<i2").tobytes())
