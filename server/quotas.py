"""How many sessions and minutes a key may use. Belongs to the event loop.

Counted on this replica; with n replicas a key may use up to n times as much.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal

log = structlog.get_logger(__name__)

DAY_S = 86_400
RETRY_AFTER_S = 5.0
# A token serves one viewer; the second place is for a page that is loaded anew.
TOKEN_SESSIONS = 2


class _Usage(msgspec.Struct, kw_only=True):
    """The file's format: seconds used by each key on one UTC day."""

    day: int
    seconds: dict[str, float] = {}


@dataclass(slots=True, eq=False)
class _Lease:
    principal: Principal
    since_s: float


class Quotas:
    """Usage of every key. file: where it outlives a restart, None to forget. `now` as time.time."""

    def __init__(self, file: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now
        self._leases: set[_Lease] = set()
        self._usage = self._read()

    def sessions(self, name: str) -> int:
        """Open sessions of a key."""
        return sum(lease.principal.name == name for lease in self._leases)

    def remaining_s(self, principal: Principal) -> float | None:
        """What is left of today's minutes in seconds, live sessions included; None for no limit."""
        if principal.minutes_per_day is None:
            return None
        now = self._now()
        self._roll_over(now)
        live = sum(
            self._today_s(lease, now)
            for lease in self._leases
            if lease.principal.name == principal.name
        )
        used = self._usage.seconds.get(principal.name, 0.0) + live
        return max(0.0, principal.minutes_per_day * 60 - used)

    @contextmanager
    def lease(self, principal: Principal) -> Iterator[None]:
        """Count a session while it lives. Raises ProtocolError `quota_exceeded`."""
        self._check(principal)
        lease = _Lease(principal, self._now())
        self._leases.add(lease)
        try:
            yield
        finally:
            self._leases.discard(lease)
            self._charge(lease)

    def _check(self, principal: Principal) -> None:
        used = self.sessions(principal.name)
        if principal.max_sessions is not None and used >= principal.max_sessions:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{principal.name!r} has {used} sessions, {principal.max_sessions} at most; "
                "end one first",
                retry_after_s=RETRY_AFTER_S,
            )
        tokens = Counter(lease.principal.token_id for lease in self._leases)
        if principal.token_id is not None and tokens[principal.token_id] >= TOKEN_SESSIONS:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                "this client token has a session already; get another token for another viewer",
                retry_after_s=RETRY_AFTER_S,
            )
        remaining_s = self.remaining_s(principal)
        if remaining_s is not None and remaining_s <= 0:
            now = self._now()
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{principal.name!r} has used its {principal.minutes_per_day:g} minutes of today "
                "(UTC); wait for the next day or raise minutes_per_day",
                retry_after_s=(int(now // DAY_S) + 1) * DAY_S - now,
            )

    def _charge(self, lease: _Lease) -> None:
        now = self._now()
        self._roll_over(now)
        name = lease.principal.name
        used = self._usage.seconds.get(name, 0.0)
        self._usage.seconds[name] = used + self._today_s(lease, now)
        self._write()

    def _today_s(self, lease: _Lease, now: float) -> float:
        """How much of a session falls on today; 0 where the wall clock went back."""
        return max(0.0, now - max(lease.since_s, self._usage.day * DAY_S))

    def _roll_over(self, now: float) -> None:
        day = int(now // DAY_S)
        if day != self._usage.day:
            self._usage = _Usage(day=day)

    def _read(self) -> _Usage:
        today = int(self._now() // DAY_S)
        if self._file is not None and self._file.is_file():
            try:
                usage = msgspec.json.decode(self._file.read_bytes(), type=_Usage)
            except (OSError, msgspec.DecodeError) as error:
                log.warning("usage file not read; counting from zero", error=str(error))
            else:
                if usage.day == today:
                    return usage
        return _Usage(day=today)

    def _write(self) -> None:
        """A few hundred bytes, once a session, so that it may be done on the event loop."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(self._usage))
            os.replace(part, self._file)
        except OSError as error:
            log.warning("usage file not written", error=str(error))
