"""What was sent lately, in the order of the wire, for a client that comes back. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from visavis.server.protocol import Flag, Header, decode_frame, encode_frame
from visavis.server.timeline import SEQ_MASK

# Media that is sent again at most; older frames are kept only back to the last keyframe.
REPLAY_US = 2_000_000
MAX_EVENTS = 256
# Ten seconds: a stream without keyframes is no reason to keep everything.
MAX_MEDIA = 250


@dataclass(slots=True)
class SentEvent:
    """The session's `number`-th event; `order` is its place on the wire, `after_seq` the `seq` of
    the last media before it, None for none."""

    order: int
    number: int
    text: str
    after_seq: int | None = None


@dataclass(slots=True)
class SentMedia:
    """One media message; `order` is its place on the wire."""

    order: int
    header: Header
    audio: bytes
    video: bytes


@dataclass(frozen=True, slots=True)
class RingState:
    """A copy of a ring; media are whole messages with their places on the wire."""

    order: int
    last_seq: int | None
    events: tuple[SentEvent, ...]
    media: tuple[tuple[int, bytes], ...]


class SentRing:
    """Bounded by time for media and by number for events."""

    def __init__(self) -> None:
        self.media: deque[SentMedia] = deque()
        self._events: deque[SentEvent] = deque(maxlen=MAX_EVENTS)
        self._order = 0
        self._last_seq: int | None = None

    def save(self) -> RingState:
        """A copy, to go on with it elsewhere."""
        media = [(m.order, encode_frame(m.header, m.audio, m.video)) for m in self.media]
        return RingState(self._order, self._last_seq, tuple(self._events), tuple(media))

    @classmethod
    def load(cls, state: RingState) -> Self:
        """Go on from a copy."""
        ring = cls()
        ring._order, ring._last_seq = state.order, state.last_seq
        ring._events.extend(state.events)
        for order, message in state.media:
            frame = decode_frame(message)
            ring.media.append(SentMedia(order, frame.header, frame.audio, frame.video))
        return ring

    def forget(self) -> None:
        """Nobody comes back for it."""
        self.media.clear()
        self._events.clear()

    def add_event(self, number: int, text: str) -> None:
        """An event goes out."""
        self._order += 1
        self._events.append(SentEvent(self._order, number, text, self._last_seq))

    def add_media(self, header: Header, audio: bytes, video: bytes) -> None:
        """A media message goes out."""
        self._order += 1
        self._last_seq = header.seq
        self.media.append(SentMedia(self._order, header, audio, video))
        self._trim(header.pts_us - REPLAY_US)

    def _trim(self, before_us: int) -> None:
        """Drop what is older, but not the keyframe that what is kept was predicted from."""
        num_old = 0
        for position, item in enumerate(self.media):
            if item.header.pts_us > before_us:
                break
            if item.header.flags & Flag.KEYFRAME:
                num_old = position
        for _ in range(num_old):
            self.media.popleft()
        while len(self.media) > MAX_MEDIA:
            self.media.popleft()

    def after(
        self, seq: int | None, event_number: int | None, *, epoch: int, played_pts_us: int | None
    ) -> list[SentEvent | SentMedia]:
        """What a client missed that got media up to `seq` and events up to `event_number`.

        Without `seq`: media that was not acknowledged as shown. Without `event_number`: events that
        went out after the media that the client does have, for the wire keeps its order. Void
        epochs and media older than REPLAY_US are left out. In the order of the wire.
        """
        newest_us = self.media[-1].header.pts_us if self.media else 0
        missed: list[SentEvent | SentMedia]
        if event_number is not None:
            missed = [event for event in self._events if event.number > event_number]
        else:
            missed = list(self._events_after(seq, played_pts_us))
        for item in self.media:
            header = item.header
            if header.epoch != epoch or header.pts_us <= newest_us - REPLAY_US:
                continue
            if seq is not None:
                new = is_after(header.seq, seq)
            else:
                new = played_pts_us is not None and header.pts_us > played_pts_us
            if new:
                missed.append(item)
        return sorted(missed, key=lambda item: item.order)

    def _events_after(self, seq: int | None, played_pts_us: int | None) -> Iterator[SentEvent]:
        """Those that a client with media up to `seq`, else up to what it played, may not have."""
        if seq is None:
            played = [
                media.header.seq
                for media in self.media
                if played_pts_us is not None and media.header.pts_us <= played_pts_us
            ]
            seq = played[-1] if played else None
        for event in self._events:
            if seq is None or (event.after_seq is not None and not is_after(seq, event.after_seq)):
                yield event

    def num_void_after(self, seq: int, epoch: int) -> int:
        """Media after `seq` that a cancel made void: nobody misses it."""
        return sum(m.header.epoch != epoch and is_after(m.header.seq, seq) for m in self.media)

    def reference(self, first: SentMedia | None) -> list[bytes]:
        """Pictures from the last keyframe before `first` up to it, to decode it with; None: up to
        the end, to decode what was not sent yet."""
        pictures: list[bytes] = []
        for item in self.media:
            if item is first:
                break
            if item.header.flags & Flag.KEYFRAME:
                pictures.clear()
            pictures.append(item.video)
        return pictures

    def replace(self, media: SentMedia) -> None:
        """The frame of the same place was sent again with another picture."""
        for position, item in enumerate(self.media):
            if item.order == media.order:
                self.media[position] = media
                return


def is_after(seq: int, other: int) -> bool:
    """Whether `seq` was sent after `other`; both wrap."""
    return 0 < (seq - other) & SEQ_MASK < 1 << 31


def with_picture(media: SentMedia, video: bytes, *, keyframe: bool) -> SentMedia:
    """The same frame with another picture."""
    flags = media.header.flags & ~Flag.KEYFRAME
    if keyframe:
        flags |= Flag.KEYFRAME
    header = replace(media.header, flags=flags, video_len=len(video))
    return SentMedia(media.order, header, media.audio, video)


def as_first(media: SentMedia) -> SentMedia:
    """The same frame, marked as not predicted from what came before."""
    header = replace(media.header, flags=media.header.flags | Flag.DISCONTINUITY)
    return SentMedia(media.order, header, media.audio, media.video)
