"""What the engine can take and what it has, from costs measured at warm-up and since. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from visavis.engine.plan import CHUNK_LENGTHS, new_frames
from visavis.server.chunk_policy import UNMEASURED_START_S
from visavis.server.events import Degradation
from visavis.server.protocol import FPS
from visavis.server.quality import DegradePolicy, Quality, QualityControl

if TYPE_CHECKING:
    from visavis.engine.costs import ChunkCosts
    from visavis.server.picture_costs import PictureCosts

# The share of real time that speech may take: as simulated with live speakers who are interrupted,
# players stand still for less than 1 % of the speech up to here, and for more beyond.
LOAD_TARGET = 0.8
# The same in shorter chunks than need be, which leave less time to wait for one another; and of one
# who speaks alone, with nobody else's work in the way.
SHORT_TARGET = 0.7
ALONE_TARGET = 0.9
MAX_MEASURED_SESSIONS = 64
# Live speech is made in chunks of this length at most: longer ones would be waited for too long.
LONGEST_LIVE = CHUNK_LENGTHS[-2]
SMOOTHING = 0.1
# On CPUs that the server has in common with the engine, live chunks take so much longer than at
# warm-up, when nothing else was done (1.4 on two cores, load generator included); until it is seen.
SHARED_SLOWNESS = 1.4


def expected_slowness(device_type: str) -> float:
    """Of an engine on such a device (`torch.device.type`) before live work was seen."""
    return SHARED_SLOWNESS if device_type == "cpu" else 1.0


class EngineLoad:
    """One engine's account: how many may speak, how long a start takes, when to lower quality.

    costs: asked whenever they are needed, for all that is done measures them anew. num_steps:
    denoising steps as configured; policy: what may be lowered under load; pictures: what they cost,
    None for nothing; slowness: of live work against `costs`, before any was seen.

    Sessions that speak share the engine as if each had it for itself in turn: those who speak live
    want a chunk each at moments of their own, so that few are ever denoised together, and what that
    saves is for the moments when they coincide.
    """

    def __init__(
        self,
        costs: Callable[[], ChunkCosts | None],
        *,
        num_steps: int,
        policy: DegradePolicy | None = None,
        pictures: PictureCosts | None = None,
        slowness: float = 1.0,
    ) -> None:
        self.speaking = 0
        self.conversing = 0  # those who speak, and those who did a moment ago
        self._ask_costs = costs
        self._control = QualityControl(policy or DegradePolicy(), Quality(num_steps))
        self._slowness = slowness  # of the model's work, against what it costs at best
        self._waiting = 1.0  # of starts, against an engine that does nothing else
        self._pictures = pictures
        self._picture_slowness = 1.0  # of pictures, against what they cost at best
        self._here: dict[object, float] = {}  # work for a frame's picture, at full size and rate

    @property
    def _costs(self) -> ChunkCosts | None:
        return self._ask_costs()

    @property
    def quality(self) -> Quality:
        """What sessions have now."""
        return self._control.quality

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        """What is lowered now."""
        return self._control.degraded

    @property
    def num_steps(self) -> int:
        """Denoising steps to use now."""
        return self.quality.num_steps

    def picture_s(self, video: str, size: tuple[int, int], fps: float) -> float:
        """Work for the picture of each frame of such a session; size is (height, width)."""
        return 0.0 if self._pictures is None else self._pictures.frame_s(video, size, fps)

    def enter(self, session: object, picture_s: float | None) -> None:
        """A session has a place, and needs so much for each frame's picture (None: the usual)."""
        self._here[session] = self._usual_s if picture_s is None else picture_s

    def leave(self, session: object) -> None:
        """It gave its place back."""
        self._here.pop(session, None)

    @property
    def capacity(self) -> int:
        """`places` with more sessions of the usual kind."""
        return self.places()

    def places(self, picture_s: float | None = None) -> int:
        """Sessions that can speak at once without stutter: those that are here, and as many more
        that need `picture_s` for each frame's picture (None: the usual).

        1 when nothing was measured, and also where a single one is too much: it is slow then, and
        told so, but not refused.
        """
        if self._costs is None:
            return 1
        here = list(self._here.values())
        each_s = self._usual_s if picture_s is None else picture_s
        for sessions in range(MAX_MEASURED_SESSIONS, 1, -1):
            pictures_s = sum(here[:sessions]) + each_s * max(0, sessions - len(here))
            load = sessions * self._model_share(self._control.full, LONGEST_LIVE)
            if load + pictures_s * FPS * self._picture_slowness <= LOAD_TARGET:
                return sessions
        return 1

    @property
    def _usual_s(self) -> float:
        return 0.0 if self._pictures is None else self._pictures.usual_s

    @property
    def fewest_frames(self) -> int:
        """New frames of a chunk of live speech: as few as can be afforded while all speak that are
        in conversation, for one who pauses goes on before others have ended."""
        speaking = max(1, self.conversing)
        target = ALONE_TARGET if speaking == 1 else SHORT_TARGET
        for chunk_frames in CHUNK_LENGTHS:
            affordable = speaking * self._share(self.quality, chunk_frames) <= target
            if affordable or chunk_frames == LONGEST_LIVE:
                break
        return new_frames(chunk_frames)

    def start_s(self) -> dict[int, float]:
        """For each chunk length, from the order to its first frame as things are."""
        if self._costs is None:
            return dict(UNMEASURED_START_S)
        costs, steps = self._costs, self.num_steps
        return {c: costs.start_s(c, steps) * self._waiting for c in CHUNK_LENGTHS}

    def load(self, quality: Quality | None = None) -> float:
        """Share of the engine's time that those who speak now need, by what chunks cost; with
        another quality than that of now if given."""
        return self.speaking * self._share(quality or self.quality, LONGEST_LIVE)

    def observe(
        self,
        chunk_frames: int,
        *,
        busy_s: float,
        wait_s: float | None,
        encode_s: float = 0.0,
        picture_s: float = 0.0,
    ) -> None:
        """A whole chunk took so much of the engine's time, `encode_s` of it for its pictures, of
        which each frame's should take `picture_s`; its first frame came after `wait_s`, None for
        idling."""
        if self._costs is None:
            return
        quality = self.quality
        expected_s = self._costs.chunk_s(chunk_frames, quality.num_steps)
        slowness = max(1.0, (busy_s - encode_s) / expected_s)
        # Idling is disturbed by less than speech is, and promises nothing for it.
        if wait_s is not None or slowness > self._slowness:
            self._slowness += SMOOTHING * (slowness - self._slowness)
        if picture_s:
            took_s = encode_s / new_frames(chunk_frames) / quality.picture_work
            self._picture_slowness += SMOOTHING * (took_s / picture_s - self._picture_slowness)
        if wait_s is not None:
            ratio = wait_s / self._costs.start_s(chunk_frames, quality.num_steps)
            self._waiting += 2 * SMOOTHING * (max(1.0, ratio) - self._waiting)

    def update(self, now_s: float) -> bool:
        """Lower quality when real time is about to be missed, raise it when it is safe again.

        Returns whether something changed.
        """
        return self._costs is not None and self._control.update(now_s, self.load)

    def _share(self, quality: Quality, chunk_frames: int) -> float:
        """Of the engine's time, for one session that speaks."""
        here = list(self._here.values())
        picture_s = sum(here) / len(here) if here else self._usual_s
        pictures = picture_s * FPS * self._picture_slowness * quality.picture_work
        return self._model_share(quality, chunk_frames) + pictures

    def _model_share(self, quality: Quality, chunk_frames: int) -> float:
        if self._costs is None:
            return 0.0
        factor = self._costs.realtime_factor(quality.num_steps, chunk_frames=chunk_frames)
        return factor * self._slowness
