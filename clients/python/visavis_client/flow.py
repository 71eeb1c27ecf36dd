"""The bounds of a session: frames not read yet, audio not spoken yet, audio a second."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from visavis_client.errors import TimedOutError
from visavis_client.events import ResponseDone
from visavis_client.frames import AvatarFrame
from visavis_client.protocol import FRAME_US

Item = AvatarFrame | ResponseDone | Exception | None


class FrameQueue:
    """Frames in order, with the ends of responses and errors between them; None ends an empty one.

    capacity: frames held. When it is full, the oldest idle frame gives way (`dropped` counts them,
    and the frame after it gets `gap`); when all are speech, `put` waits, which holds back the
    server.
    """

    def __init__(self, capacity: int) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._num_frames = 0
        self._void_epoch = -1
        self._last_pts_us: int | None = None
        self._changed = asyncio.Condition()
        self._end: Exception | None = None
        self._ended = False

    def __len__(self) -> int:
        return self._num_frames

    @property
    def position_us(self) -> int | None:
        """`pts_us` up to which all speech was read; None before the first frame.

        Idle frames count as soon as they are here, for they may be dropped.
        """
        for item in self._items:
            if isinstance(item, AvatarFrame) and not item.idle:
                return max(0, item.pts_us - FRAME_US)
        return self._last_pts_us

    async def put(self, frame: AvatarFrame) -> None:
        """Append a frame, unless its epoch is void."""
        async with self._changed:
            while self._num_frames >= self._capacity and not self._drop_idle() and not self._ended:
                await self._changed.wait()
            if frame.epoch > self._void_epoch and not self._ended:
                self._items.append(frame)
                self._num_frames += 1
                self._last_pts_us = frame.pts_us
                self._changed.notify_all()

    async def put_marker(self, item: ResponseDone | Exception | None) -> None:
        """Append something that takes no room."""
        async with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    async def void(self, epoch: int) -> None:
        """Discard frames of this epoch and earlier ones, also those that still come, and errors."""
        async with self._changed:
            self._void_epoch = max(self._void_epoch, epoch)
            kept = (item for item in self._items if isinstance(item, (AvatarFrame, ResponseDone)))
            self._items = deque(
                item
                for item in kept
                if isinstance(item, ResponseDone) or item.epoch > self._void_epoch
            )
            self._num_frames = sum(isinstance(item, AvatarFrame) for item in self._items)
            self._changed.notify_all()

    async def end(self, error: Exception | None) -> None:
        """Nothing comes any more; `get` raises `error`, or StopAsyncIteration, once it is empty."""
        async with self._changed:
            self._ended, self._end = True, error
            self._changed.notify_all()

    async def get(self) -> Item:
        """The next item, in order. Raises as `end` says."""
        async with self._changed:
            while not self._items:
                if self._ended:
                    raise self._end or StopAsyncIteration
                await self._changed.wait()
            item = self._items.popleft()
            if isinstance(item, AvatarFrame):
                self._num_frames -= 1
                self._changed.notify_all()
            return item

    def _drop_idle(self) -> bool:
        for position, item in enumerate(self._items):
            if isinstance(item, AvatarFrame) and item.idle:
                del self._items[position]
                self._num_frames -= 1
                self.dropped += 1
                self._mark_gap(position)
                return True
        return False

    def _mark_gap(self, position: int) -> None:
        for later in range(position, len(self._items)):
            item = self._items[later]
            if isinstance(item, AvatarFrame):
                self._items[later] = replace(item, gap=True)
                return


class InputCredit:
    """Keeps the server's input buffer from overflowing.

    What the server holds is at most what was sent and did not come back with a frame yet, and
    the chunk that it works on. `limit` bounds the former, in samples.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._outstanding: dict[int, int] = {}
        self._changed = asyncio.Event()

    @property
    def outstanding(self) -> int:
        """Samples sent and not come back."""
        return sum(self._outstanding.values())

    async def take(self, response: int, samples: int, timeout_s: float) -> None:
        """Wait until `samples` more may be sent. Raises TimedOutError without any progress."""
        while self.outstanding + samples > self.limit:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                raise TimedOutError(
                    f"{self.outstanding} samples wait at the server and none came back "
                    f"within {timeout_s:g} s",
                    remedy="read frames in another task while sending, or use speak()",
                ) from None
        self._outstanding[response] = self._outstanding.get(response, 0) + samples

    def came_back(self, response: int, samples: int) -> None:
        """A frame returned `samples` of that response."""
        if response in self._outstanding:
            self._outstanding[response] -= samples
            self._changed.set()

    def lost(self, samples: int) -> None:
        """So many samples will not come back, of the oldest responses."""
        for response, waiting in sorted(self._outstanding.items()):
            part = min(samples, waiting)
            self.came_back(response, part)
            samples -= part

    def done(self, response: int) -> None:
        """Nothing of that response waits any more."""
        self._outstanding.pop(response, None)
        self._changed.set()


class InputRate:
    """Keeps to the server's `max_input_rate`: a bucket that leaks, with a margin for jitter.

    rate: seconds of audio a second; None for no limit. burst_s: what may come at once.
    """

    # The server counts a message for no less than this.
    SMALLEST_S = 0.001
    MARGIN = 0.9

    def __init__(
        self,
        rate: float | None,
        burst_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = None if rate is None else self.MARGIN * rate
        self._burst_s = self.MARGIN * burst_s
        self._clock = clock
        self._level_s = 0.0
        self._then_s = clock()

    def wait_s(self, audio_s: float) -> float:
        """Count a message of that length, and say how long to wait before sending it."""
        if self._rate is None:
            return 0.0
        now_s = self._clock()
        self._level_s = max(0.0, self._level_s - (now_s - self._then_s) * self._rate)
        self._then_s = now_s
        self._level_s += max(audio_s, self.SMALLEST_S)
        return max(0.0, (self._level_s - self._burst_s) / self._rate)
