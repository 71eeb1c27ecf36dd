"""Whether a process's memory grows: a straight line through samples of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np

from visavis.server.bench_client import rss_mib

SAMPLE_EVERY_S = 1.0
# A slope from less than this is dominated by what a server allocates once, in its first chunks.
SHORTEST_S = 60.0
WARM_UP_SHARE = 0.25
MB_PER_MIB = (1 << 20) / 1e6


@dataclass(slots=True)
class MemoryWatch:
    """Samples the resident memory of process `pid` until it is cancelled."""

    pid: int | None
    times_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    _end: int | None = None

    async def run(self) -> None:
        """Sample for ever; at once returns without a process to watch."""
        while self.pid is not None:
            memory = rss_mib(self.pid)
            if memory is None:
                return
            self.times_s.append(time.monotonic())
            self.mib.append(memory)
            await asyncio.sleep(SAMPLE_EVERY_S)

    def mark(self) -> None:
        """The load changes now: later samples say nothing about the slope under this one."""
        self._end = len(self.mib)

    def slope(self) -> tuple[float | None, str]:
        """(MB per minute, "") by least squares without the first quarter, or (None, reason)."""
        times_s, mib = self.times_s[: self._end], self.mib[: self._end]
        if self.pid is None:
            return None, "no process to watch: pass --pid, or no --url"
        if not mib:
            return None, f"the memory of process {self.pid} cannot be read"
        lasted_s = times_s[-1] - times_s[0]
        if lasted_s < SHORTEST_S:
            return None, f"{lasted_s:.0f} s were watched, a slope needs {SHORTEST_S:.0f}"
        start_s = times_s[0] + WARM_UP_SHARE * lasted_s
        kept = np.array(times_s) >= start_s
        minutes = (np.array(times_s)[kept] - start_s) / 60
        slope = np.polyfit(minutes, np.array(mib)[kept], 1)[0]
        return float(slope) * MB_PER_MIB, ""
