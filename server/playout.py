"""How one session's frames go out: places, states, and the end of each response. No I/O, no clock.

The law that everything here serves: each `response.created` is followed by exactly one
`response.done`, whatever comes in between.
"""

from __future__ import annotations

from collections import deque

from visavis.server import events as ev
from visavis.server.protocol import FRAME_US, Flag
from visavis.server.responses import Response, Responses
from visavis.server.timeline import MediaFrame, Stamped, Timeline

# How long after its frames should have been shown a response waits for the client's word.
PLAYBACK_GRACE_S = 1.0


class Playout:
    """Frames that are ready, the timeline that they get, and the responses that they end."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.ready: deque[MediaFrame] = deque()
        self.state: ev.AvatarState = "idle"
        self.played_pts_us: int | None = None
        self._base_state: ev.AvatarState = "idle"
        self._responses = Responses()

    @property
    def epoch(self) -> int:
        """Grows by one at every cancel that voids media."""
        return self.timeline.epoch

    @property
    def next_index(self) -> int:
        """The number of the next frame sent."""
        return self.timeline.next_index

    @property
    def next_pts_us(self) -> int:
        """The timeline position of the next frame."""
        return self.timeline.next_pts_us

    @property
    def last_ordinal(self) -> int:
        """The engine's number of the last frame sent; -1 before it."""
        return self.timeline.last_ordinal

    @property
    def head(self) -> Response | None:
        """The response that the engine works on."""
        return self._responses.head

    @property
    def open_responses(self) -> tuple[Response, ...]:
        """What was created and is not done."""
        return tuple(self._responses)

    @property
    def has_open_responses(self) -> bool:
        return len(self._responses) > 0

    @property
    def has_committed_responses(self) -> bool:
        """Whether something remains that comes to its end without further input."""
        return any(r.committed for r in self._responses)

    @property
    def speaks(self) -> bool:
        """Whether frames of speech are being shown or wait to be, or will be without further input.

        An open utterance does not count once the engine has its audio and what could be made of it
        was shown.
        """
        if not len(self._responses):
            return False
        if self.has_committed_responses or self.state == "speaking":
            return True
        return self._responses.pending_samples > 0 or any(frame.response for frame in self.ready)

    @property
    def listening(self) -> bool:
        """Whether the avatar listens while it does not speak."""
        return self._base_state == "listening"

    def _change_state(self, state: ev.AvatarState) -> ev.ServerEvent:
        self.state = state
        return ev.StateChanged(state=state, pts_us=self.next_pts_us)

    def stamp(self, now_s: float, *, playback_end_s: float, with_video: bool = True) -> Stamped:
        """Take the next ready frame and give it its place. Raises IndexError when none is ready.

        playback_end_s: when the client will have shown all of what was sent, this frame included.
        """
        frame = self.ready.popleft()
        before: list[ev.ServerEvent] = []
        flags = Flag(0)
        pts_us = self.next_pts_us
        response = self._responses.find(frame.response) if frame.response else None
        if response is None:
            flags |= Flag.IDLE
            if self.state == "speaking":
                before.append(self._change_state(self._base_state))
        else:
            if response.first_pts_us is None:
                flags |= Flag.FIRST
                response.first_pts_us = pts_us
                before.append(
                    ev.ResponseStarted(
                        response_id=response.id, response_index=response.index, pts_us=pts_us
                    )
                )
            if self.state != "speaking":
                before.append(self._change_state("speaking"))
            if frame.last:
                flags |= Flag.LAST
            response.sent += 1
            response.end_pts_us = pts_us + FRAME_US
        header = self.timeline.header(frame, flags, with_video=with_video)
        after = self._complete(response, now_s, playback_end_s) if response is not None else []
        return Stamped(before, header, frame, after)

    def playback(self, pts_us: int, now_s: float) -> list[ev.ServerEvent]:
        """The client shows the frame at `pts_us`; values outside what was sent are clamped."""
        pts_us = min(max(pts_us, 0), self.next_pts_us)
        self.played_pts_us = max(pts_us, self.played_pts_us or 0)
        return self.tick(now_s)

    def tick(self, now_s: float) -> list[ev.ServerEvent]:
        """Finish the responses whose playback ended, or whose client stopped telling."""
        events: list[ev.ServerEvent] = []
        for response in self._responses:
            if response.done_by_s is None:
                break
            # The last frame counts as played once it is on screen.
            played = (self.played_pts_us or 0) >= response.end_pts_us - FRAME_US
            if not played and now_s < response.done_by_s:
                break
            events.append(self._done(response, "completed", None))
        return events

    def _complete(
        self, response: Response, now_s: float, playback_end_s: float
    ) -> list[ev.ServerEvent]:
        if not response.finished or response.sent < response.generated:
            return []
        if response.done_by_s is None:
            waits = self.played_pts_us is not None
            response.done_by_s = playback_end_s + PLAYBACK_GRACE_S if waits else now_s
        return self.tick(now_s)

    def reschedule(self, playback_end_s: float) -> None:
        """The client came back: its playback of what was sent ends at another time."""
        for response in self._responses:
            if response.done_by_s is not None:
                response.done_by_s = playback_end_s + PLAYBACK_GRACE_S

    def _done(
        self, response: Response, status: ev.ResponseStatus, reason: str | None
    ) -> ev.ServerEvent:
        return self._responses.done(response, status, reason, played_pts_us=self.played_pts_us)
