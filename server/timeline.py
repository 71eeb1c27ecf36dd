"""The media timeline of one session: places, sequence numbers, epochs. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from visavis.server import events as ev
from visavis.server.protocol import FRAME_US, Flag, Header, Kind

# Sent frames whose place is remembered: ten seconds, more than a client may be behind.
REMEMBERED_FRAMES = 250
SEQ_MASK = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Picture:
    """A compressed picture, b"" for none; `late`: it was left out because its time was over."""

    video: bytes
    keyframe: bool
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFrame:
    """One encoded frame on its way out; its place on the timeline is given when it is sent.

    `audio` is pcm16 at the caller's rate, `generation` the engine run that made it and `ordinal`
    its number in the engine's stream. `late`: its picture was left out because its time was over.
    """

    generation: int
    response: int
    audio: bytes
    video: bytes
    keyframe: bool
    last: bool = False
    late: bool = False
    ordinal: int = 0

    @property
    def made(self) -> bool:
        """Whether it can go out."""
        return True

    def settled(self) -> MediaFrame:
        """The frame with its picture, once that is made."""
        return self

    def with_picture(self, picture: Picture) -> MediaFrame:
        """The same frame with that picture."""
        return MediaFrame(
            generation=self.generation,
            response=self.response,
            audio=self.audio,
            video=picture.video,
            keyframe=picture.keyframe,
            last=self.last,
            late=picture.late,
            ordinal=self.ordinal,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameInTheMaking(MediaFrame):
    """A frame whose picture is still being compressed: it has its place in the line of frames."""

    picture: Future[Picture]

    @classmethod
    def of(cls, blank: MediaFrame, picture: Future[Picture]) -> FrameInTheMaking:
        """A frame without a picture, which is to get this one."""
        return cls(
            generation=blank.generation,
            response=blank.response,
            audio=blank.audio,
            video=b"",
            keyframe=False,
            last=blank.last,
            ordinal=blank.ordinal,
            picture=picture,
        )

    @property
    def made(self) -> bool:
        """See MediaFrame. A picture that failed never is: its session ends with that error."""
        return self.picture.done() and (self.picture.cancelled() or not self.picture.exception())

    def settled(self) -> MediaFrame:
        """See MediaFrame; without a picture if there will be none."""
        wanted = self.made and not self.picture.cancelled()
        return self.with_picture(self.picture.result() if wanted else Picture(b"", False))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInput:
    """What the engine is to take in before its next chunk.

    `reset`: forget the audio, and go back to the state right after the frame `shown_ordinal`, the
    last one that the viewer saw (-1: none was sent). `keyframe`: the next frame made must be
    decodable alone.
    """

    generation: int
    response: int
    audio: tuple[bytes, ...]
    commit: bool
    reset: bool
    shown_ordinal: int = -1
    keyframe: bool = False


@dataclass(frozen=True, slots=True)
class Stamped:
    """A frame with its header and the events that go right before and after it."""

    before: list[ev.ServerEvent]
    header: Header
    frame: MediaFrame
    after: list[ev.ServerEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineState:
    """A copy of a timeline; `ordinals` are (place, engine's number) of the frames sent lately."""

    epoch: int
    next_index: int
    last_ordinal: int
    next_seq: int
    discontinuity: bool
    ordinals: tuple[tuple[int, int], ...]


class Timeline:
    """Gives each sent frame its header and knows which one was at which place."""

    def __init__(self) -> None:
        self.epoch = 0
        self.next_index = 0
        self.last_ordinal = -1
        self.next_seq = 0
        self._discontinuity = False
        self._ordinals: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_FRAMES)

    def save(self) -> TimelineState:
        """A copy, to go on with it elsewhere."""
        return TimelineState(
            epoch=self.epoch,
            next_index=self.next_index,
            last_ordinal=self.last_ordinal,
            next_seq=self.next_seq,
            discontinuity=self._discontinuity,
            ordinals=tuple(self._ordinals),
        )

    @classmethod
    def load(cls, state: TimelineState) -> Self:
        """Go on from a copy."""
        timeline = cls()
        timeline.epoch = state.epoch
        timeline.next_index = state.next_index
        timeline.last_ordinal = state.last_ordinal
        timeline.next_seq = state.next_seq
        timeline._discontinuity = state.discontinuity
        timeline._ordinals.extend(state.ordinals)
        return timeline

    @property
    def next_pts_us(self) -> int:
        """The place of the next frame."""
        return self.next_index * FRAME_US

    def begin_epoch(self, shown_pts_us: int | None) -> tuple[int, int]:
        """A cancel: what was sent before is void, and what comes after the frame on screen at
        `shown_pts_us` (None: the last one that counts) never was.

        Returns that frame's place and the engine's number of it, -1 for none.
        """
        self.epoch += 1
        self._discontinuity = True
        index = self.next_index if shown_pts_us is None else shown_pts_us // FRAME_US
        while len(self._ordinals) > 1 and self._ordinals[-1][0] > index:
            self._ordinals.pop()
        return self._ordinals[-1] if self._ordinals else (-1, -1)

    def mark_discontinuity(self) -> None:
        """The next frame is not predicted from what the client has."""
        self._discontinuity = True

    def header(self, frame: MediaFrame, flags: Flag, *, with_video: bool) -> Header:
        """The header of the frame that goes out now."""
        if frame.keyframe and with_video:
            flags |= Flag.KEYFRAME
        if self._discontinuity:
            flags |= Flag.DISCONTINUITY
            self._discontinuity = False
        header = Header(
            kind=Kind.MEDIA,
            flags=flags,
            seq=self.next_seq,
            pts_us=self.next_pts_us,
            epoch=self.epoch,
            response=frame.response,
            audio_len=len(frame.audio),
            video_len=len(frame.video) if with_video else 0,
        )
        self._ordinals.append((self.next_index, frame.ordinal))
        self.next_seq = (self.next_seq + 1) & SEQ_MASK
        self.next_index += 1
        self.last_ordinal = frame.ordinal
        return header
