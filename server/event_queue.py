"""Events of one session that wait to be said, bounded, and the numbers that they get. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from visavis.server import events as ev
from visavis.server.sent_ring import RingState, SentRing

# A client that makes the server say more than this without reading is not worth a place.
MAX_EVENTS = 1024
# Numbers kept for what is still said here to a client whose session goes on elsewhere.
FAREWELL_EVENTS = 8
# Told again or worthless later: not kept for a client that comes back.
_PASSING = (
    ev.SessionStats,
    ev.SessionPong,
    ev.AudioAppended,
    ev.SessionLoading,
    ev.SessionResumed,
)
# Said also to a client that is closed for what it does not read.
_OWED = (ev.ResponseCreated, ev.ResponseStarted, ev.ResponseDone, ev.ErrorEvent)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundState:
    """What was sent lately, and what was to be: events that wait, as JSON without their numbers."""

    ring: RingState
    num_events: int
    waiting: tuple[str, ...]


class EventQueue:
    """What waits, oldest first, and in `ring` what was said lately."""

    def __init__(self) -> None:
        self.ring = SentRing()
        self.num_events = 0
        self._waiting: deque[ev.ServerEvent] = deque()
        self._overflowed = False
        self._had: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def resumes(self) -> bool:
        """Whether session.resumed comes next."""
        return bool(self._waiting) and isinstance(self._waiting[0], ev.SessionResumed)

    def add(self, *items: ev.ServerEvent) -> bool:
        """Queue events; True when there are too many for the first time, of which only those that
        every client gets are left."""
        self._waiting.extend(items)
        first = not self._overflowed and len(self._waiting) > MAX_EVENTS
        if self._overflowed or first:
            self.keep_owed()
        return first

    def put_first(self, items: list[ev.ServerEvent]) -> None:
        """Queue events, in that order, before all others."""
        self._waiting.extendleft(reversed(items))

    def keep_owed(self) -> None:
        """Forget what waits and what will, but not responses' ends, and errors."""
        self._overflowed = True
        owed = [event for event in self._waiting if isinstance(event, _OWED)]
        self._waiting.clear()
        self._waiting.extend(owed)

    def take(self) -> str:
        """The next event as it goes out. Raises IndexError when none waits."""
        return self.keep(self._waiting.popleft())

    def take_all(self) -> Iterator[str]:
        """As `take`, until none waits."""
        while self._waiting:
            yield self.take()

    @property
    def next(self) -> ev.ServerEvent:
        """What `take` is about. Raises IndexError when none waits."""
        return self._waiting[0]

    def keep(self, event: ev.ServerEvent) -> str:
        """Number an event that goes out now, and remember it for a client that comes back."""
        text = self.number(event)
        if not isinstance(event, _PASSING):
            self.ring.add_event(self.num_events, text)
        return text

    def number(self, event: ev.ServerEvent) -> str:
        """Number an event that goes out now."""
        self.num_events += 1
        event.event_id = f"evt_{self.num_events}"
        if isinstance(event, ev.SessionResumed):
            # Whoever has this one, and then loses the connection, has none of what follows.
            had = "resumed" if self._had is None else self._had
            event.event_id = f"evt_{had}_{self.num_events}"
        return ev.encode_event(event)

    def resume(self, first: ev.SessionResumed, had: int | None) -> None:
        """`first` comes before what waits; `had` is the number of the last event that the client
        has, None when nobody knows."""
        self._had = had
        # One of an earlier connection, which was lost before it could be said, is no longer true.
        waiting = [event for event in self._waiting if not isinstance(event, ev.SessionResumed)]
        self._waiting = deque([first, *waiting])

    def save(self) -> OutboundState:
        """A copy, to go on with it elsewhere; what waits is forgotten here."""
        waiting = tuple(ev.encode_event(event) for event in self._waiting)
        self._waiting.clear()
        num_events = self.num_events + FAREWELL_EVENTS
        return OutboundState(ring=self.ring.save(), num_events=num_events, waiting=waiting)

    def load(self, state: OutboundState) -> None:
        """Go on from a copy; the numbers of events go on, too."""
        self.ring = SentRing.load(state.ring)
        self.num_events = state.num_events
        self._waiting.extend(ev.decode_server_event(text) for text in state.waiting)
