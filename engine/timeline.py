"""A session's line of frames: what was shown, what a chunk hands to the next, and the way back.

It knows nothing of utterances; the session says what is heard and what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visavis.engine.avatar_frame import AvatarFrame
from visavis.engine.dit.sampler import ChunkAbandoned
from visavis.engine.foresight import Foresight
from visavis.engine.history import History, HistoryState, Moment
from visavis.engine.pipeline import ChunkJob, ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME, MOTION_FRAMES


@dataclass(frozen=True, slots=True)
class Sound:
    """What a chunk is made for: 16 kHz float32 [640 * new frames], and the caller's own samples of
    each frame to be shown. `consume` is told how many of these were, once that is certain, and
    answers whether an utterance ended with the last.
    """

    engine: NDArray[np.float32]
    caller: list[NDArray[np.int16]]
    speech: bool
    consume: Callable[[int], bool]


class Chunk:
    """A chunk under way: denoise its `job` to the end, then take its `frames()`.

    `AvatarSession.generate` does both; a scheduler does it for many sessions at once.
    """

    def __init__(
        self, job: ChunkJob, frames: Iterator[AvatarFrame], obsolete: Callable[[], bool]
    ) -> None:
        self.job = job
        self.obsolete = obsolete
        self._frames = frames

    def frames(self) -> Iterator[AvatarFrame]:
        """Frames as they are decoded, once the job is denoised.

        Raises:
            ChunkAbandoned: (from the iterator) the chunk became obsolete.
        """
        return self._frames


class Timeline:
    """Frames in order; every chunk begins where the last one that came to its end has ended."""

    def __init__(self, pipeline: FlashTalkPipeline, conditions: Conditions, seed: int) -> None:
        self.next_index = 0
        self._pipeline = pipeline
        self._conditions = conditions
        self._chunk = pipeline.first_state(conditions, seed)
        self._history = History(pipeline.front_end.past_samples)
        self._under_way: tuple[ChunkJob, Sound] | None = None
        self._foresight = Foresight(pipeline.front_end)
        self._epoch = 0  # raised by whatever makes a chunk under way obsolete
        self._motion_due = False  # what the next chunk begins with is to be made from the history

    def abandon(self) -> None:
        """Whatever is under way is obsolete."""
        self._epoch += 1
        self._foresight.forget()

    def close(self) -> None:
        """Nothing follows. What is under way knows its session, and goes now."""
        self.abandon()
        self._under_way = None

    @property
    def foresees(self) -> bool:
        """Whether `begin` makes use of `upcoming`."""
        return self._foresight.possible

    def begin(
        self,
        sound: Sound,
        *,
        num_steps: int,
        should_stop: Callable[[], bool] | None,
        temperature: float = 1.0,
        upcoming: NDArray[np.float32] | None = None,
    ) -> Chunk:
        """Prepare the next chunk; from here on, earlier ones are obsolete.

        `upcoming`: the 16 kHz sound of the chunk after it, if that is known: it may be heard early.
        """
        self._epoch += 1
        epoch = self._epoch
        self._forget_unfinished()
        if self._motion_due:
            self._go_on_from_history()

        def obsolete() -> bool:
            return self._epoch != epoch or (should_stop is not None and should_stop())

        past = self._history.past()
        job = self._pipeline.start_chunk(
            self._chunk,
            self._foresight.features(past, sound.engine),
            self._conditions,
            shown=len(sound.caller),
            num_steps=num_steps,
            temperature=temperature,
        )
        if upcoming is not None:
            self._foresight.begin(past, sound.engine, upcoming)
        return Chunk(job, self._frames(job, sound, obsolete), obsolete)

    def play(self, chunk: Chunk) -> Iterator[AvatarFrame]:
        """The chunk alone, from its first step to its last frame; raises ChunkAbandoned."""
        while not chunk.job.denoised:
            if chunk.obsolete():
                raise ChunkAbandoned("the chunk was abandoned between two denoising steps")
            self._pipeline.denoise([chunk.job])
        yield from chunk.frames()

    def replay(self, frame: AvatarFrame, audio: NDArray[np.int16]) -> AvatarFrame:
        """An earlier frame as the next one; raises ValueError if it has no pose."""
        if frame.pose is None:
            raise ValueError("frame.pose is missing: only frames that a session gave can be shown")
        self._epoch += 1
        self._forget_unfinished()
        self._history.append(Moment(frame.pose, np.zeros(ENGINE_SAMPLES_PER_FRAME, np.float32)))
        self._go_on_from_history()
        shown = replace(frame, index=self.next_index, audio=audio, speech=False, last=False)
        self.next_index += 1
        return shown

    def recover(self, index: int) -> None:
        """A chunk failed of which `index` (-1: none of any) was the last frame that was given.

        It is made anew as far as its frames were not given; raises RewindError.
        """
        self._motion_due = True
        if index >= 0:
            self.rewind(index)
        self._epoch += 1

    def rewind(self, index: int) -> None:
        """Make frame `index` the last one; raises RewindError."""
        if index + 1 == self.next_index == self._history.end:
            self._epoch += 1  # it is the last one
            return
        self._history.rewind(index + 1)
        self._epoch += 1
        self._foresight.forget()
        seen = max(0, index + 1 - self.next_index)
        under_way, self._under_way = self._under_way, None
        self.next_index = index + 1
        if under_way is not None and seen:
            # The random state goes on, so that the next attempt differs from what was undone.
            job, sound = under_way
            self._chunk = replace(self._chunk, random=job.generator.get_state())
            sound.consume(seen)
        # Last, since it computes: should that fail, everything else is as it has to be.
        self._go_on_from_history()

    def save(self) -> tuple[ChunkState, HistoryState]:
        """The state between chunks: what is large in it is shared."""
        if self._motion_due:
            self._go_on_from_history()
        return self._chunk, self._history.save(self.next_index)

    def restore(self, chunk: ChunkState, history: HistoryState) -> None:
        """Take over what `save` gave."""
        self._chunk = chunk
        self._history = History.load(history)
        self.next_index = history.end
        self._under_way = None
        self._motion_due = False
        self._epoch += 1
        self._foresight.forget()

    def _forget_unfinished(self) -> None:
        """A chunk that did not come to its end never happened."""
        self._history.cut(self.next_index)
        self._under_way = None

    def _go_on_from_history(self) -> None:
        self._motion_due = True
        poses = tuple(self._history.poses(MOTION_FRAMES))
        if poses:
            motion = self._pipeline.hand_over(poses, self._conditions)
        else:
            motion = self._conditions.initial_motion
        self._chunk = ChunkState(motion, self._chunk.random, poses)
        self._motion_due = False

    def _frames(
        self, job: ChunkJob, sound: Sound, obsolete: Callable[[], bool]
    ) -> Iterator[AvatarFrame]:
        self._under_way = (job, sound)
        first_index = self.next_index
        heard = sound.engine.reshape(-1, ENGINE_SAMPLES_PER_FRAME)
        frames = self._pipeline.decode(job)
        for position, audio in enumerate(sound.caller):
            if obsolete():
                raise ChunkAbandoned("the session went another way while the chunk was decoded")
            frame = next(frames)
            self._history.append(Moment(frame.pose, heard[position]))
            last = False
            if frame.next_state is not None:
                self._chunk = frame.next_state
                self._under_way = None
                self.next_index += job.shown
                last = sound.consume(job.shown)
            index = first_index + position
            yield AvatarFrame(index, frame.pixels, audio, sound.speech, last, frame.pose)
