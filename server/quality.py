"""What is lowered when the engine is short of time, in which order, and when it comes back. No I/O.

The machine has one number, how many of its levers are pulled. It goes up by one when the load has
been too high for a while, and down by one when the load *with that lever let go* would have been
low for a longer while: what brought relief is not taken back as long as it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from visavis.server.events import Degradation
from visavis.server.protocol import FPS

# Above the first, quality is lowered; below the second, predicted with better quality, it returns.
DEGRADE_LOAD = 0.95
RESTORE_LOAD = 0.8
# How long a state must last before something is changed because of it.
DEGRADE_AFTER_S = 1.0
RESTORE_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Denoising steps; the sides of pictures against what each session has, up to 1; and the most
    pictures a second."""

    num_steps: int
    scale: float = 1.0
    fps: float = FPS

    @property
    def picture_work(self) -> float:
        """Work for pictures, against that with all of their size and rate."""
        return self.scale**2 * self.fps / FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradePolicy:
    """The order of the levers, and how far each goes. An empty order: nothing is ever lowered."""

    order: tuple[Degradation, ...] = ("steps", "size", "fps")
    min_steps: int = 2
    min_scale: float = 0.5
    min_fps: float = 12.5

    def levers(self, full: Quality) -> tuple[Degradation, ...]:
        """Those of the order that change anything."""
        return tuple(lever for lever in self.order if self._pull(full, lever) != full)

    def lowered(self, full: Quality, count: int) -> Quality:
        """With the first `count` of `levers` pulled."""
        quality = full
        for lever in self.levers(full)[:count]:
            quality = self._pull(quality, lever)
        return quality

    def _pull(self, quality: Quality, lever: Degradation) -> Quality:
        match lever:
            case "steps":
                return replace(quality, num_steps=min(quality.num_steps, self.min_steps))
            case "size":
                return replace(quality, scale=min(quality.scale, self.min_scale))
            case "fps":
                return replace(quality, fps=min(quality.fps, self.min_fps))


class QualityControl:
    """The machine. full: what sessions have while there is time for it."""

    def __init__(self, policy: DegradePolicy, full: Quality) -> None:
        self.full = full
        self.pulled = 0
        self._policy = policy
        self._levers = policy.levers(full)
        self._wanted = 0
        self._since_s = 0.0

    @property
    def quality(self) -> Quality:
        """What holds now."""
        return self._policy.lowered(self.full, self.pulled)

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        """The levers pulled now, in the order of the policy."""
        return self._levers[: self.pulled]

    def update(self, now_s: float, load: Callable[[Quality], float]) -> bool:
        """Look at the load, the share of real time that work takes with a quality.

        Returns whether something changed.
        """
        wanted = self._wish(load)
        if wanted != self._wanted:
            self._wanted, self._since_s = wanted, now_s
        after_s = DEGRADE_AFTER_S if wanted > 0 else RESTORE_AFTER_S
        if not wanted or now_s - self._since_s < after_s:
            return False
        self.pulled += wanted
        self._wanted = 0
        return True

    def _wish(self, load: Callable[[Quality], float]) -> int:
        if self.pulled < len(self._levers) and load(self.quality) > DEGRADE_LOAD:
            return 1
        better = self._policy.lowered(self.full, self.pulled - 1)
        if self.pulled and load(better) < RESTORE_LOAD:
            return -1
        return 0
