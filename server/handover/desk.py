"""Leaves sessions for other replicas and takes theirs: sealed, in the store, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from visavis.server.config import ServerConfig
from visavis.server.handover.bundle import Bundle, BundleError, pack_bundle, unpack_bundle
from visavis.server.handover.seal import Sealer, SealError
from visavis.server.handover.store import FolderStore, HandOverStore

log = structlog.get_logger(__name__)


class HandOverDesk:
    """One replica's side of the store. clock: seconds since 1970, as on all replicas."""

    def __init__(
        self, store: HandOverStore, sealer: Sealer, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    @classmethod
    def from_config(cls, config: ServerConfig) -> HandOverDesk | None:
        """None where no folder is named: sessions end with their replica then."""
        if config.handover_dir is None or config.resume_secret is None:
            return None
        ttl_s, max_bytes = config.resume_ttl_s, config.handover_max_bytes
        sealer = Sealer(config.resume_secret.get_secret_value(), ttl_s=ttl_s, max_bytes=max_bytes)
        # What the seal adds must fit, too.
        store = FolderStore(config.handover_dir, ttl_s=ttl_s, max_bytes=max_bytes + 4096)
        return cls(store, sealer)

    @property
    def max_bytes(self) -> int:
        """Of a bundle."""
        return self._sealer.max_bytes

    async def leave(self, bundle: Bundle) -> None:
        """Put a session into the store. Raises SealError or OSError."""
        await asyncio.to_thread(self._leave, bundle)

    def _leave(self, bundle: Bundle) -> None:
        data = pack_bundle(bundle)
        sealed = self._sealer.seal(bundle.session_id, data, now_s=self._clock())
        self._store.put(bundle.session_id, sealed)

    async def collect(self, session_id: str) -> Bundle | None:
        """Take a session out of the store; None when there is none that can be gone on with."""
        return await asyncio.to_thread(self._collect, session_id)

    def _collect(self, session_id: str) -> Bundle | None:
        try:
            sealed = self._store.take(session_id)
            if sealed is None:
                return None
            return unpack_bundle(self._sealer.open(session_id, sealed, now_s=self._clock()))
        except (SealError, BundleError, OSError) as error:
            log.warning("a session that was left here cannot be gone on with", reason=str(error))
            return None
