"""One live conversation: speech of any slicing in, frames with their own slice of it out.

The session is a state machine over two things: utterances that wait to be spoken, and the state
that a chunk hands to the next one. All of the latter is in `SessionState`, so that a session can be
copied and rewound exactly. It is not thread-safe: one thread calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.resample import FrameResampler
from visavis.engine.dit.sampler import ChunkAbandoned, timesteps
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
from visavis.engine.utterance import Utterance, UtteranceState

# The first chunk after silence is short, so that the face answers soon; 12 frames are enough to
# play while the next, long chunk is made.
FIRST_CHUNK_FRAMES = 17


class AudioFormatError(ValueError):
    """PCM of another kind than mono int16."""


class NotEnoughAudioError(ValueError):
    """A chunk was asked for before the audio that it needs has come."""


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """A picture and the sound that belongs to it.

    `index` counts all frames of the session, idle ones too, so frame `index` starts at `index / 25`
    seconds of the session's timeline. `pixels` is uint8 RGB [H, W, 3]. `audio` holds the caller's
    own int16 samples of these 40 ms at the caller's rate; the last frame of an utterance may carry
    fewer, and a frame of idling carries silence. `speech` tells the two apart; `last` marks the
    last frame of an utterance.
    """

    index: int
    pixels: NDArray[np.uint8]
    audio: NDArray[np.int16]
    speech: bool
    last: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """Everything a session carries from one call to the next; nothing in it is ever written to.

    `chunk`: motion latents and random state. `past`: the 16 kHz timeline that audio features reach
    back to. `next_index`: frames made so far. `settled`: the last chunk was idling (or none was
    made yet). `utterances`: audio received and not consumed.
    """

    chunk: ChunkState
    past: NDArray[np.float32]
    next_index: int
    settled: bool
    utterances: tuple[UtteranceState, ...]


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
    ) -> None:
        """Start at rest, before the first frame.

        Raises:
            PlanError: `input_rate` is not a whole number in 8000..48000.
            SamplerError: `num_steps` is not in 1..100.
        """
        timesteps(num_steps)
        self._pipeline = pipeline
        self._conditions = conditions
        self._num_steps = num_steps
        self._resampler = FrameResampler(input_rate)
        self._chunk = pipeline.first_state(conditions, seed)
        self._past = np.zeros(pipeline.front_end.past_samples, np.float32)
        self._next_index = 0
        self._settled = True
        self._utterances: deque[Utterance] = deque()
        self._epoch = 0  # raised by whatever makes a chunk under way obsolete

    @property
    def input_rate(self) -> int:
        """Sample rate of pushed and returned audio, Hz."""
        return self._resampler.rate

    @property
    def buffered_samples(self) -> int:
        """Samples pushed and not yet consumed by a finished chunk."""
        return sum(u.unread_samples for u in self._utterances)

    def push_audio(self, pcm: NDArray[np.int16]) -> None:
        """Append speech: mono int16 at `input_rate`, any number of samples (they are copied).

        Raises:
            AudioFormatError: the array has another dtype or more than one dimension.
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
        """End the utterance: its tail becomes ready, padded with silence for the model.

        Returns:
            Frames of it that are still to come. 0 means that the last one was already given, then
            no frame will be marked `last`; so also if nothing was pushed since the last commit.
        """
        if not self._utterances or self._utterances[-1].committed:
            return 0
        utterance = self._utterances[-1]
        utterance.committed = True
        remaining = utterance.ready_frames
        self._drop_finished()
        return remaining

    def clear_audio(self) -> int:
        """Drop all audio that no finished chunk consumed, and any chunk under way.

        The next pushed sample begins a new utterance.

        Returns:
            The number of samples dropped.
        """
        dropped = self.buffered_samples
        self._utterances.clear()
        self._settled = True
        self._epoch += 1
        return dropped

    @property
    def longest_chunk(self) -> int:
        """The most that `next_chunk` can be now, however much audio there is."""
        return FIRST_CHUNK_FRAMES if self._settled else CHUNK_LENGTHS[-1]

    def next_chunk(self) -> int | None:
        """Length of the chunk that `generate` would make now: 9, 17 or 33; None: it needs audio.

        The longest chunk whose audio is there, since long chunks cost least per frame; but the
        first one after silence is at most 17 long, and the end of an utterance takes the shortest
        that covers it. A caller who would rather collect audio for a longer chunk just waits.
        """
        if not self._utterances:
            return None
        utterance = self._utterances[0]
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
        buffered. `should_stop` is asked between denoising steps.

        Raises:
            NotEnoughAudioError: the chunk's audio has not come yet.
            PlanError: `chunk_frames` is none of the chunk lengths.
            ChunkAbandoned: (from the iterator) `should_stop` said so, or `clear_audio`, `restore`
                or another chunk made this one obsolete.
        """
        chunk_frames = chunk_frames or self.next_chunk()
        utterance = self._utterances[0] if self._utterances else None
        ready = utterance.ready_frames if utterance else 0
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
        return self._run(chunk_frames, utterance, min(wanted, ready), should_stop)

    def generate_idle(
        self,
        chunk_frames: int = CHUNK_LENGTHS[0],
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[AvatarFrame]:
        """Listen: one chunk on silence, on the same timeline; buffered audio stays where it is.

        Raises:
            PlanError: `chunk_frames` is none of the chunk lengths.
            ChunkAbandoned: (from the iterator) as in `generate`.
        """
        shown = new_frames(check_chunk_frames(chunk_frames))
        return self._run(chunk_frames, None, shown, should_stop)

    def snapshot(self) -> SessionState:
        """The state between chunks; cheap (some 30 kB beside the buffered audio, shared)."""
        return SessionState(
            self._chunk,
            self._past,
            self._next_index,
            self._settled,
            tuple(u.save() for u in self._utterances),
        )

    def restore(self, state: SessionState) -> None:
        """Go back to a snapshot of this session, or take over that of another one with the same
        avatar, input rate and steps: what follows is then the same, bit for bit."""
        self._chunk = state.chunk
        self._past = state.past
        self._next_index = state.next_index
        self._settled = state.settled
        self._utterances = deque(Utterance.load(u, self._resampler) for u in state.utterances)
        self._epoch += 1

    def _run(
        self,
        chunk_frames: int,
        utterance: Utterance | None,
        shown: int,
        should_stop: Callable[[], bool] | None,
    ) -> Iterator[AvatarFrame]:
        """One chunk; `utterance` None means silence. From here on, earlier ones are obsolete."""
        self._epoch += 1
        epoch = self._epoch

        def obsolete() -> bool:
            return self._epoch != epoch or (should_stop is not None and should_stop())

        return self._frames(chunk_frames, utterance, shown, obsolete, epoch)

    def _frames(
        self,
        chunk_frames: int,
        utterance: Utterance | None,
        shown: int,
        obsolete: Callable[[], bool],
        epoch: int,
    ) -> Iterator[AvatarFrame]:
        new_audio, caller_audio = self._audio(utterance, new_frames(chunk_frames), shown)
        frames = self._pipeline.generate_chunk(
            self._chunk,
            self._pipeline.front_end.features(self._past, new_audio),
            self._conditions,
            shown=shown,
            num_steps=self._num_steps,
            should_stop=obsolete,
        )
        first_index = self._next_index
        for position, (frame, audio) in enumerate(zip(frames, caller_audio, strict=True)):
            if self._epoch != epoch:
                raise ChunkAbandoned("the session went another way while the chunk was decoded")
            last = False
            if frame.next_state is not None:
                last = self._advance(frame.next_state, new_audio, utterance, shown)
            yield AvatarFrame(
                first_index + position, frame.pixels, audio, utterance is not None, last
            )

    def _advance(
        self,
        chunk: ChunkState,
        new_audio: NDArray[np.float32],
        utterance: Utterance | None,
        shown: int,
    ) -> bool:
        """The chunk is done: take over its state; True if its utterance ended with it."""
        heard = new_audio[: shown * ENGINE_SAMPLES_PER_FRAME]
        self._past = np.concatenate([self._past, heard])[-len(self._past) :]
        self._chunk = chunk
        self._next_index += shown
        self._settled = utterance is None
        if utterance is None:
            return False
        utterance.consume(shown)
        ended = utterance.finished
        self._drop_finished()
        return ended

    def _audio(
        self, utterance: Utterance | None, new: int, shown: int
    ) -> tuple[NDArray[np.float32], list[NDArray[np.int16]]]:
        """16 kHz audio of a chunk's new frames, and the caller's slices of those shown."""
        if utterance is not None:
            return utterance.engine_audio(new), utterance.caller_audio(shown)
        rate, first = self._resampler.rate, self._next_index
        lengths = [
            frame_start(f + 1, rate) - frame_start(f, rate) for f in range(first, first + shown)
        ]
        silence = [np.zeros(n, np.int16) for n in lengths]
        return np.zeros(new * ENGINE_SAMPLES_PER_FRAME, np.float32), silence

    def _drop_finished(self) -> None:
        while self._utterances and self._utterances[0].finished:
            self._utterances.popleft()
            self._settled = True
