"""Whether the machine let browser and server run: a page is not to blame for what others take.

Linux counts for each thread how long it was ready and got no CPU; a page that is slow by itself
runs, and does not wait. Where that is not counted, the page is to blame for everything.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PROC = Path("/proc")
# A frame is 40 ms: threads that waited for more than this share of the time have lost some.
STARVED_SHARE = 0.03


def _parent(pid: int) -> int:
    # The name in brackets may have spaces.
    return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = _parent(pid)
    return False


def _waited_s() -> dict[str, float]:
    """Thread -> seconds that it waited for a CPU, of this process and all that it started."""
    waited = {}
    for folder in PROC.glob("[0-9]*"):
        # Processes and threads may end while they are looked at.
        with contextlib.suppress(OSError, ValueError, IndexError):
            if _is_ours(int(folder.name)):
                for file in folder.glob("task/*/schedstat"):
                    waited[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return waited


class Starvation:
    """Measures from when it is made; `share` is that of the thread that waited most, 0 to 1."""

    def __init__(self) -> None:
        self._before = _waited_s()
        self._start_s = time.monotonic()

    @property
    def share(self) -> float:
        seconds = time.monotonic() - self._start_s
        now = _waited_s()
        return max((now[t] - self._before.get(t, 0.0) for t in now), default=0.0) / seconds

    @property
    def starved(self) -> bool:
        """Whether something waited for a CPU so long that it can be seen and heard."""
        return self.share > STARVED_SHARE
