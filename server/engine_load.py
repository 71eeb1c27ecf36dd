"""What the engine can take and what it has, from costs measured at warm-up and since. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from visavis.engine.plan import CHUNK_LENGTHS, new_frames
from visavis.server.chunk_policy import UNMEASURED_START_S
from visavis.server.events import Degradation

if TYPE_CHECKING:
    from visavis.engine.costs import ChunkCosts

# The share of real time that admitted sessions may take together: the rest absorbs jitter.
LOAD_TARGET = 0.9
MAX_MEASURED_SESSIONS = 64
# Live speech is made in chunks of this length at worst, when many speak.
PLANNED_CHUNK = 17
FEWEST_STEPS = 2
SMOOTHING = 0.1
# Above the first, quality is lowered; below the second, predicted with full quality, it comes back.
DEGRADE_LOAD = 0.95
RESTORE_LOAD = 0.8
# How long a state must last before something is changed because of it.
DEGRADE_AFTER_S = 1.0
RESTORE_AFTER_S = 10.0
FEW_FRAMES, MORE_FRAMES = new_frames(CHUNK_LENGTHS[0]), new_frames(CHUNK_LENGTHS[1])


class EngineLoad:
    """One engine's account: how many may speak, how long a start takes, when to lower quality.

    costs: asked whenever they are needed, for all that is done measures them anew. num_steps:
    denoising steps as configured, which are lowered under load where that is allowed.
    """

    def __init__(
        self,
        costs: Callable[[], ChunkCosts | None],
        *,
        num_steps: int,
        may_lower_steps: bool = True,
    ) -> None:
        self.speaking = 0
        self.degraded: list[Degradation] = []
        self._ask_costs = costs
        self._full_steps = num_steps
        self._may_lower = may_lower_steps
        self._slowness = 1.0  # of work, against what it costs at best
        self._waiting = 1.0  # of starts, against an engine that does nothing else
        self._since_s: float | None = None

    @property
    def _costs(self) -> ChunkCosts | None:
        return self._ask_costs()

    @property
    def num_steps(self) -> int:
        """Denoising steps to use now."""
        return min(FEWEST_STEPS, self._full_steps) if self.degraded else self._full_steps

    @property
    def capacity(self) -> int:
        """Sessions that can speak at once without stutter; 1 when nothing was measured, and also
        where a single one is too much: it is slow then, and told so, but not refused."""
        if self._costs is None:
            return 1
        found = self._costs.capacity(
            self._full_steps,
            LOAD_TARGET / self._slowness,
            MAX_MEASURED_SESSIONS,
            chunk_frames=PLANNED_CHUNK,
        )
        return max(1, found)

    @property
    def first_frames(self) -> int:
        """Frames to wait for before speech begins: few while all that speak can afford that."""
        speaking = max(1, self.speaking)
        load = speaking * self._factor(self.num_steps, CHUNK_LENGTHS[0])
        return FEW_FRAMES if load <= LOAD_TARGET else MORE_FRAMES

    def start_s(self) -> dict[int, float]:
        """For each chunk length, from the order to its first frame as things are."""
        if self._costs is None:
            return dict(UNMEASURED_START_S)
        costs, steps = self._costs, self.num_steps
        return {c: costs.start_s(c, steps) * self._waiting for c in CHUNK_LENGTHS}

    def load(self, num_steps: int | None = None) -> float:
        """Share of the engine's time that those who speak now take, by what chunks cost."""
        return self.speaking * self._factor(num_steps or self.num_steps, PLANNED_CHUNK)

    def observe(self, chunk_frames: int, *, busy_s: float, wait_s: float | None) -> None:
        """A whole chunk took so much of the engine's time, its first frame came after `wait_s`."""
        if self._costs is None:
            return
        steps = self.num_steps
        expected_s = self._costs.chunk_s(chunk_frames, steps)
        self._slowness += SMOOTHING * (max(1.0, busy_s / expected_s) - self._slowness)
        if wait_s is not None:
            ratio = wait_s / self._costs.start_s(chunk_frames, steps)
            self._waiting += 2 * SMOOTHING * (max(1.0, ratio) - self._waiting)

    def update(self, now_s: float) -> bool:
        """Lower quality when real time is about to be missed, raise it when it is safe again.

        Returns whether something changed.
        """
        if self._costs is None or not self._may_lower:
            return False
        if self.degraded:
            wanted, after_s = self.load(self._full_steps) < RESTORE_LOAD, RESTORE_AFTER_S
        else:
            lowered = self._full_steps > FEWEST_STEPS
            wanted, after_s = lowered and self.load() > DEGRADE_LOAD, DEGRADE_AFTER_S
        if not wanted:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < after_s:
            return False
        self._since_s = None
        self.degraded = [] if self.degraded else ["steps"]
        return True

    def _factor(self, num_steps: int, chunk_frames: int) -> float:
        if self._costs is None:
            return 0.0
        factor = self._costs.realtime_factor(
            num_steps, sessions=max(1, self.speaking), chunk_frames=chunk_frames
        )
        return factor * self._slowness
