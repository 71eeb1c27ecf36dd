"""Where a replica leaves a sealed session for the one that goes on with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Protocol

from visavis.server.handover.seal import LEEWAY_S

_SUFFIX = ".session"


class HandOverStore(Protocol):
    """A place that all replicas reach. Calls may wait for a disk or a network: not on the loop."""

    def put(self, session_id: str, sealed: bytes) -> None:
        """Leave a session. Raises OSError when it cannot be written."""
        ...

    def take(self, session_id: str) -> bytes | None:
        """Take a session away: of several that ask, one gets it. None when there is none."""
        ...


class FolderStore:
    """A folder that the replicas have mounted; a file a session, gone after `ttl_s` at the latest.

    A file appears whole or not at all, and leaves by being renamed, which only one can do. Names
    are digests: a session's id is not to be read from a listing.
    """

    def __init__(self, folder: Path, *, ttl_s: float, max_bytes: int) -> None:
        """Files above `max_bytes` are not read."""
        self._folder = folder
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes

    def put(self, session_id: str, sealed: bytes) -> None:
        """See HandOverStore. Also removes what nobody came for."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sweep()
        target = self._path(session_id)
        part = target.with_suffix(f".{secrets.token_hex(6)}.part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def take(self, session_id: str) -> bytes | None:
        """See HandOverStore."""
        source = self._path(session_id)
        mine = source.with_suffix(f".{secrets.token_hex(6)}.part")
        try:
            os.rename(source, mine)
        except FileNotFoundError:
            return None
        try:
            with mine.open("rb") as file:
                data = file.read(self._max_bytes + 1)
        finally:
            mine.unlink(missing_ok=True)
        return data if len(data) <= self._max_bytes else None

    def sweep(self) -> None:
        """Remove files that are too old, whoever left them."""
        oldest_s = time.time() - self._ttl_s - LEEWAY_S
        for path in self._folder.glob("*.*"):
            if path.suffix not in (_SUFFIX, ".part"):
                continue
            with contextlib.suppress(OSError):  # another replica was faster
                if path.stat().st_mtime < oldest_s:
                    path.unlink()

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(session_id.encode()).hexdigest()}{_SUFFIX}"
