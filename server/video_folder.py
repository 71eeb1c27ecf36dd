"""Where one replica keeps its renderings, in a folder that all replicas may have mounted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

# A replica shows so often that it lives.
TOUCH_EVERY_S = 600.0
# One that has not done so for this long has died; far more than clocks of replicas may differ.
STALE_S = 7_200.0


class VideoFolder:
    """`root/name`, which only this replica writes to.

    root: shared by the replicas. name: of this one, fit for a file. Whoever starts removes what was
    left under its own name, and what nobody has touched for STALE_S.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / name
        self._root = root
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Remove what is left over, and show from now on that this replica lives."""
        # Nobody knows the ids of an earlier process any more.
        shutil.rmtree(self.path, ignore_errors=True)
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Renderings go with the process that knows their ids."""
        if self._keeping is not None:
            self._keeping.cancel()
        await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(TOUCH_EVERY_S)

    def sweep(self) -> None:
        """Touch the own folder, if there is one, and remove those of replicas that died."""
        now_s = time.time()
        try:
            if self.path.is_dir():
                os.utime(self.path, (now_s, now_s))
            folders = list(self._root.iterdir()) if self._root.is_dir() else []
        except OSError as error:
            log.warning("folder of renderings not kept", error=str(error))
            return
        for folder in folders:
            with contextlib.suppress(OSError):  # another replica was faster
                if folder != self.path and folder.stat().st_mtime < now_s - STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)
