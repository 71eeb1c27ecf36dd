"""The caller's audio on its way in: one utterance, its samples, and what was made of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.resample import FrameResampler
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, frame_start, frames_of

_PIECE_SAMPLES = 8192


class AudioFormatError(ValueError):
    """PCM of another kind than mono int16."""


@dataclass(frozen=True, slots=True)
class UtteranceState:
    """A copy of an utterance; the sample arrays are shared and never written to."""

    pieces: tuple[NDArray[np.int16], ...]
    first_index: int
    received: int
    next_frame: int
    committed: bool


class Utterance:
    """Samples received and frames consumed since the utterance began; times count from there.

    Samples behind the next frame's resampling margin are forgotten, so what it holds is the
    caller's lead plus a constant: at most about 1.2 s, at rates that share no divisor with 16000.
    """

    def __init__(self, resampler: FrameResampler) -> None:
        self._resampler = resampler
        self._pieces: deque[NDArray[np.int16]] = deque()
        self._first_index = 0
        self.received = 0
        self.next_frame = 0
        self.committed = False

    @property
    def unread_samples(self) -> int:
        """Samples received whose frame was not consumed yet."""
        return self.received - min(self.received, self._start(self.next_frame))

    @property
    def ready_frames(self) -> int:
        """Frames that can be consumed now; after the commit, all that remain."""
        if self.committed:
            total = frames_of(self.received, self._resampler.rate)
        else:
            total = self._resampler.ready_frames(self.received)
        return max(0, total - self.next_frame)

    @property
    def finished(self) -> bool:
        return self.committed and self.ready_frames == 0

    def push(self, pcm: NDArray[np.int16]) -> None:
        """Append a copy of mono samples, any number."""
        self.received += len(pcm)
        if self._pieces and len(self._pieces[-1]) < _PIECE_SAMPLES:
            pcm = np.concatenate([self._pieces.pop(), pcm])
        # Pieces are bounded so that consumed parts of an hour-long slice are freed on the way.
        for start in range(0, len(pcm), _PIECE_SAMPLES):
            self._pieces.append(pcm[start : start + _PIECE_SAMPLES].copy())

    def engine_audio(self, frames: int, *, after: int = 0) -> NDArray[np.float32]:
        """`frames` frames at 16 kHz, float32 [640 * frames]; silence after the end.

        They are the next ones, or those that come `after` so many.
        """
        audio = np.empty(frames * ENGINE_SAMPLES_PER_FRAME, np.float32)
        first = self.next_frame + after
        last = first + frames - 1
        start = self._resampler.first_sample(first)
        pcm = self._samples(start, self._resampler.end_sample(last))
        for frame, out in zip(range(first, last + 1), audio.reshape(frames, -1), strict=True):
            out[:] = self._resampler.frame(pcm, start, frame)
        return audio

    def caller_audio(self, frames: int) -> list[NDArray[np.int16]]:
        """The caller's own samples of the next frames; only an utterance's last one is short."""
        first = self.next_frame
        return [
            self._samples(self._start(f), self._start(f + 1)) for f in range(first, first + frames)
        ]

    def consume(self, frames: int) -> None:
        """Go on by `frames` and forget what no later frame needs."""
        self.next_frame += frames
        keep = min(self._resampler.first_sample(self.next_frame), self.received)
        while self._pieces and self._first_index + len(self._pieces[0]) <= keep:
            self._first_index += len(self._pieces.popleft())

    def save(self) -> UtteranceState:
        return UtteranceState(
            tuple(self._pieces), self._first_index, self.received, self.next_frame, self.committed
        )

    @classmethod
    def load(cls, state: UtteranceState, resampler: FrameResampler) -> Utterance:
        utterance = cls(resampler)
        utterance._pieces = deque(state.pieces)
        utterance._first_index = state.first_index
        utterance.received = state.received
        utterance.next_frame = state.next_frame
        utterance.committed = state.committed
        return utterance

    def _start(self, frame: int) -> int:
        return frame_start(frame, self._resampler.rate)

    def _samples(self, start: int, end: int) -> NDArray[np.int16]:
        """Samples start..end as far as they exist."""
        found, index = [np.empty(0, np.int16)], self._first_index
        for piece in self._pieces:
            if index >= end:
                break
            found.append(piece[max(0, start - index) : max(0, end - index)])
            index += len(piece)
        return np.concatenate(found)


class SpeechQueue:
    """Utterances that wait to be spoken, in order; the last one is open until it is committed."""

    def __init__(self, resampler: FrameResampler) -> None:
        self._resampler = resampler
        self._utterances: deque[Utterance] = deque()

    @property
    def rate(self) -> int:
        """Sample rate of the audio, Hz."""
        return self._resampler.rate

    @property
    def head(self) -> Utterance | None:
        """The one in turn."""
        return self._utterances[0] if self._utterances else None

    @property
    def unread_samples(self) -> int:
        """Samples pushed whose frames were not consumed."""
        return sum(u.unread_samples for u in self._utterances)

    def push(self, pcm: NDArray[np.int16]) -> None:
        """Append a copy of mono samples to the open utterance, beginning one if there is none.

        Raises:
            AudioFormatError: not a one-dimensional int16 array.
        """
        if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
            kind = f"{pcm.dtype} {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
            raise AudioFormatError(
                f"pcm is {kind}: must be a numpy array of int16, shape [samples]; mix it down to "
                "mono and scale it to 16 bit"
            )
        if not len(pcm):
            return
        if not self._utterances or self._utterances[-1].committed:
            self._utterances.append(Utterance(self._resampler))
        self._utterances[-1].push(pcm)

    def commit(self) -> int:
        """End the open utterance; the frames of it that are still to come, 0 without one."""
        if not self._utterances or self._utterances[-1].committed:
            return 0
        self._utterances[-1].committed = True
        return self._utterances[-1].ready_frames

    def clear(self) -> int:
        """Drop everything; the number of unread samples."""
        dropped = self.unread_samples
        self._utterances.clear()
        return dropped

    def drop_finished(self) -> bool:
        """Remove utterances that were spoken; whether there were any."""
        found = False
        while self._utterances and self._utterances[0].finished:
            self._utterances.popleft()
            found = True
        return found

    def save(self) -> tuple[UtteranceState, ...]:
        return tuple(u.save() for u in self._utterances)

    def restore(self, states: Sequence[UtteranceState]) -> None:
        """Take over what `save` gave."""
        self._utterances = deque(Utterance.load(state, self._resampler) for state in states)
