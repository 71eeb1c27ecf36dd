"""One live conversation: speech of any slicing in, frames with their own slice of it out.

The session is a state machine over two things: utterances that wait to be spoken, and the state
that a chunk hands to the next one. All of the latter is in `SessionState`, so that a session can be
copied and rewound exactly. It is not thread-safe: one thread calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.resample import FrameResampler
from visavis.engine.avatar_frame import AvatarFrame as AvatarFrame
from visavis.engine.dit.sampler import ChunkAbandoned as ChunkAbandoned
from visavis.engine.dit.sampler import timesteps
from visavis.engine.history import HistoryState
from visavis.engine.history import RewindError as RewindError
from visavis.engine.pipeline import ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import (
    CHUNK_LENGTHS,
    ENGINE_SAMPLES_PER_FRAME,
    check_chunk_frames,
    covering_chunk,
    frame_start,
    largest_chunk,
    new_frames,
)
from visavis.engine.timeline import Chunk, Sound, Timeline
from visavis.engine.utterance import AudioFormatError as AudioFormatError
from visavis.engine.utterance import SpeechQueue, Utterance, UtteranceState

# The first chunk after silence is short, so that the face answers soon; 12 frames are enough to
# play while the next, long chunk is made.
FIRST_CHUNK_FRAMES = 17


class NotEnoughAudioError(ValueError):
    """A chunk was asked for before the audio that it needs has come."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """Everything a session carries from one call to the next; nothing in it is ever written to.

    `chunk`: motion latents and random state. `history`: the last frames and the 16 kHz timeline
    that audio features reach back to. `settled`: the last chunk was idling (or none was made yet).
    `utterances`: audio received and not consumed.
    """

    chunk: ChunkState
    history: HistoryState
    settled: bool
    utterances: tuple[UtteranceState, ...]

    @property
    def next_index(self) -> int:
        """Frames of the timeline so far."""
        return self.history.end


class AvatarSession:
    """Made by `AvatarEngine.open_session`."""

    def __init__(
        self,
        pipeline: FlashTalkPipeline,
        conditions: Conditions,
        *,
        input_rate: int,
        seed: int,
        num_steps: int,
        calm: float = 1.0,
    ) -> None:
        """Start at rest, before the first frame; `calm` is the temperature of listening.

        Raises:
            PlanError: `input_rate` is not a whole number in 8000..48000.
            SamplerError: `num_steps` is not in 1..100.
        """
        self.num_steps = num_steps
        self._speech = SpeechQueue(FrameResampler(input_rate))
        self._timeline = Timeline(pipeline, conditions, seed)
        self._settled = True
        self._calm = calm

    @property
    def num_steps(self) -> int:
        """Denoising steps of the next chunk; may be changed between chunks."""
        return self._num_steps

    @num_steps.setter
    def num_steps(self, num_steps: int) -> None:
        timesteps(num_steps)
        self._num_steps = num_steps

    @property
    def input_rate(self) -> int:
        """Sample rate of pushed and returned audio, Hz."""
        return self._speech.rate

    @property
    def buffered_samples(self) -> int:
        """Samples pushed and not yet consumed by a finished chunk."""
        return self._speech.unread_samples

    @property
    def ready_frames(self) -> int:
        """Frames of the utterance in turn whose audio is there."""
        utterance = self._speech.head
        return 0 if utterance is None else utterance.ready_frames

    def push_audio(self, pcm: NDArray[np.int16]) -> None:
        """Append speech: mono int16 at `input_rate`, any number of samples (they are copied).

        Raises:
            AudioFormatError: the array has another dtype or more than one dimension.
        """
        self._speech.push(pcm)

    def commit(self) -> int:
        """End the utterance: its tail becomes ready, padded with silence for the model.

        Returns:
            Frames of it that are still to come. 0 means that the last one was already given, then
            no frame will be marked `last`; so also if nothing was pushed since the last commit.
        """
        remaining = self._speech.commit()
        self._drop_finished()
        return remaining

    def clear_audio(self) -> int:
        """Drop all audio that no finished chunk consumed, and any chunk under way.

        The next pushed sample begins a new utterance.

        Returns:
            The number of samples dropped.
        """
        self._settled = True
        self._timeline.abandon()
        return self._speech.clear()

    def close(self) -> None:
        """The session is over: its memory is free as soon as nobody holds it any more."""
        self._speech.clear()
        self._timeline.close()

    @property
    def longest_chunk(self) -> int:
        """The most that `next_chunk` can be now, however much audio there is."""
        return FIRST_CHUNK_FRAMES if self._settled else CHUNK_LENGTHS[-1]

    def next_chunk(self) -> int | None:
        """What `generate` would make now, one of CHUNK_LENGTHS; None: it needs audio.

        The longest chunk whose audio is there, since long chunks cost least per frame; but the
        first one after silence is at most 17 long, and the end of an utterance takes the shortest
        that covers it. A caller who would rather collect audio for a longer chunk just waits.
        """
        utterance = self._speech.head
        if utterance is None:
            return None
        ready = utterance.ready_frames
        longest = self.longest_chunk
        if utterance.committed and ready <= new_frames(longest):
            return covering_chunk(ready)
        return largest_chunk(ready, longest)

    def generate(
        self,
        *,
        chunk_frames: int | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[AvatarFrame]:
        """Speak: make one chunk from the buffered audio, `next_chunk()` long if not told.

        Frames come as they are decoded. The session changes when the last one is taken: a chunk
        that is abandoned, or whose iterator is dropped, never happened, and its audio is still
        buffered (unless `rewind` says which of its frames were seen). `should_stop` is asked
        between denoising steps and between frames.

        Raises:
            NotEnoughAudioError: the chunk's audio has not come yet.
            PlanError: `chunk_frames` is none of the chunk lengths.
            ChunkAbandoned: (from the iterator) `should_stop` said so, or `clear_audio`, `restore`,
                `rewind` or another chunk made this one obsolete.
        """
        return self._timeline.play(self.begin(chunk_frames=chunk_frames, should_stop=should_stop))

    def generate_idle(
        self,
        chunk_frames: int = CHUNK_LENGTHS[0],
        *,
        listening: bool = False,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[AvatarFrame]:
        """Idle: one chunk on silence, on the same timeline; buffered audio stays where it is.

        `listening`: the face keeps calmer, as that of somebody who attends to another, where the
        model can do that (`AvatarEngine.listens`).

        Raises:
            PlanError: `chunk_frames` is none of the chunk lengths.
            ChunkAbandoned: (from the iterator) as in `generate`.
        """
        return self._timeline.play(
            self.begin_idle(chunk_frames, listening=listening, should_stop=should_stop)
        )

    def begin(
        self,
        *,
        chunk_frames: int | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Chunk:
        """Prepare the chunk that `generate` makes; errors as there."""
        chunk_frames = chunk_frames or self.next_chunk()
        utterance = self._speech.head
        ready = self.ready_frames
        if utterance is None or chunk_frames is None:
            raise NotEnoughAudioError(
                f"{ready} frames of audio are ready, the shortest chunk needs "
                f"{new_frames(CHUNK_LENGTHS[0])}; push more, or commit the utterance"
            )
        wanted = new_frames(check_chunk_frames(chunk_frames))
        if ready < wanted and not utterance.committed:
            raise NotEnoughAudioError(
                f"chunk_frames={chunk_frames} needs {wanted} frames of audio, {ready} are ready; "
                "push more, or take next_chunk()"
            )
        shown = min(wanted, ready)

        def consume(frames: int) -> bool:
            self._settled = False
            utterance.consume(frames)
            ended = utterance.finished
            self._drop_finished()
            return ended

        sound = Sound(utterance.engine_audio(wanted), utterance.caller_audio(shown), True, consume)
        upcoming = None
        following = self._chunk_after(utterance, wanted)
        if following is not None and self._timeline.foresees:
            upcoming = utterance.engine_audio(new_frames(following), after=wanted)
        return self._timeline.begin(
            sound, num_steps=self._num_steps, should_stop=should_stop, upcoming=upcoming
        )

    @staticmethod
    def _chunk_after(utterance: Utterance, frames: int) -> int | None:
        """What `next_chunk` will be after a chunk of so many new frames, by what is there now."""
        ready = utterance.ready_frames - frames
        if ready <= 0:
            return None
        if utterance.committed and ready <= new_frames(CHUNK_LENGTHS[-1]):
            return covering_chunk(ready)
        return largest_chunk(ready)

    def begin_idle(
        self,
        chunk_frames: int = CHUNK_LENGTHS[0],
        *,
        listening: bool = False,
        should_stop: Callable[[], bool] | None = None,
    ) -> Chunk:
        """Prepare the chunk that `generate_idle` makes; errors as there."""
        frames = new_frames(check_chunk_frames(chunk_frames))
        silence = np.zeros(frames * ENGINE_SAMPLES_PER_FRAME, np.float32)

        def consume(_: int) -> bool:
            self._settled = True
            return False

        sound = Sound(silence, self._silence(frames), False, consume)
        return self._timeline.begin(
            sound,
            num_steps=self._num_steps,
            should_stop=should_stop,
            temperature=self._calm if listening else 1.0,
        )

    def replay(self, frame: AvatarFrame) -> AvatarFrame:
        """Idle without the model: that earlier frame is shown again, as the timeline's next one.

        Raises:
            ValueError: the frame did not come from a session.
        """
        (audio,) = self._silence(1)
        self._settled = True
        return self._timeline.replay(frame, audio)

    def rewind(self, index: int) -> None:
        """Frame `index` is the last that was seen: what follows goes on from its picture.

        Frames after it never were, a chunk under way included; its own frames up to `index` are
        consumed, further audio stays buffered (`clear_audio` drops it). The random state goes on,
        so that the next attempt differs from what was undone.

        Raises:
            RewindError: that frame was not given, or longer than `HISTORY_FRAMES` ago.
        """
        self._timeline.rewind(index)

    def recover(self, index: int) -> None:
        """A chunk failed; `index` is the last frame of the session that was given, -1 for none.

        Its audio beyond that frame is still buffered, and the face goes on from it.

        Raises:
            RewindError: as `rewind`.
        """
        self._timeline.recover(index)

    def snapshot(self) -> SessionState:
        """The state between chunks; cheap, since all that is large in it is shared."""
        chunk, history = self._timeline.save()
        return SessionState(chunk, history, self._settled, self._speech.save())

    def restore(self, state: SessionState) -> None:
        """Go back to a snapshot of this session, or take over that of another one with the same
        avatar, input rate and steps: what follows is then the same, bit for bit."""
        self._timeline.restore(state.chunk, state.history)
        self._settled = state.settled
        self._speech.restore(state.utterances)

    def _silence(self, frames: int) -> list[NDArray[np.int16]]:
        """The caller's rate of silence for the next frames."""
        rate, first = self._speech.rate, self._timeline.next_index
        return [
            np.zeros(frame_start(f + 1, rate) - frame_start(f, rate), np.int16)
            for f in range(first, first + frames)
        ]

    def _drop_finished(self) -> None:
        if self._speech.drop_finished():
            self._settled = True
