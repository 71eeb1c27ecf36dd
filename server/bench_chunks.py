"""What a player sees of the engine's chunks, told from arrival times alone."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.server.bench_client import FRAME_S

# Frames of a chunk come within a few milliseconds, or at most at the pace of their decoding;
# between chunks there is a pause. Two frames' time tells them apart.
BURST_GAP_S = 2 * FRAME_S
PLAYOUT_BUFFER_S = 0.2


@dataclass(frozen=True, slots=True)
class Chunk:
    """`seconds` from when the last of its audio was due to be sent until its last frame was here:
    queueing, computing and sending. `frames` is its length."""

    frames: int
    seconds: float


class ChunkTracker:
    """Cuts the frames of one utterance into the chunks in which they were made."""

    def __init__(self) -> None:
        self._frames = 0
        self._arrived_s = self._due_s = 0.0

    def add(self, due_s: float, arrived_s: float) -> Chunk | None:
        """A frame, whose audio was due at `due_s`; the chunk before it if it begins a new one."""
        done = None
        if self._frames and arrived_s - self._arrived_s >= BURST_GAP_S:
            done = self.finish()
        self._frames += 1
        self._due_s, self._arrived_s = due_s, arrived_s
        return done

    def finish(self) -> Chunk | None:
        """The chunk so far; None without frames."""
        if not self._frames:
            return None
        chunk = Chunk(self._frames, max(0.0, self._arrived_s - self._due_s))
        self._frames = 0
        return chunk


class Playout:
    """A player's clock: frame `pts_s` is due that long after the first one, plus a buffer.

    A late frame stops the clock until it is there, as a real player would wait for it.
    """

    def __init__(self, buffer_s: float = PLAYOUT_BUFFER_S) -> None:
        self._buffer_s = buffer_s
        self._zero_s: float | None = None

    def restart(self) -> None:
        """The next frame is shown as the first one was: after a cancel, or a pause."""
        self._zero_s = None

    def arrive(self, pts_s: float, now_s: float) -> float:
        """Seconds by which the frame came too late, 0 when it was in time."""
        if self._zero_s is None:
            self._zero_s = now_s + self._buffer_s - pts_s
        late_s = max(0.0, now_s - (self._zero_s + pts_s))
        self._zero_s += late_s
        return late_s

    def position_s(self, now_s: float) -> float:
        """What is on screen now, 0 before anything is."""
        return 0.0 if self._zero_s is None else max(0.0, now_s - self._zero_s)


class SkewMeter:
    """How far picture and sound of one utterance are apart, frame by frame.

    A message brings a picture with the sound that belongs to it, so that they can only part where
    a picture was left out, or where the sound of a frame is not as long as the frame.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._index = self._samples = self._shown = 0

    def add(self, samples: int, *, has_picture: bool) -> float:
        """The next frame; seconds between its sound and the picture that is on screen with it."""
        if has_picture:
            self._shown = self._index
        sound_s = self._samples / self._rate
        self._samples += samples
        self._index += 1
        return abs(sound_s - self._shown * FRAME_S)
