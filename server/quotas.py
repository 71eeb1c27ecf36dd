"""How many sessions and minutes a key may use. Belongs to the event loop.

Sessions are counted on this replica. So are minutes, and those of replicas that keep their files in
the same folder are added, as far as they have written them. What a session uses is measured by the
monotonic clock; the wall clock says on which day (UTC) that falls.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
# Minutes that a process which dies forgets, at most, and that other replicas hear of late.
WRITE_EVERY_S = 60.0
# Files of other replicas are not read more often than this, however many sessions begin.
READ_EVERY_S = 5.0
FILES = "usage*.json"
KEPT_DAYS = 7


class _Usage(msgspec.Struct, kw_only=True):
    """The file's format: seconds used by each key on one UTC day."""

    day: int
    seconds: dict[str, float] = {}


class Lease:
    """What one session holds while it lives."""

    def __init__(self, quotas: Quotas, principal: Principal, since_s: float) -> None:
        self.principal = principal
        # Up to when, on the monotonic clock, it was charged.
        self.charged_s = since_s
        self._quotas = quotas

    def left_s(self) -> float | None:
        """For how long this session may go on if all others of its key do, too; None for ever."""
        remaining_s = self._quotas.remaining_s(self.principal)
        if remaining_s is None:
            return None
        return remaining_s / max(1, self._quotas.sessions(self.principal.name))

    def used_up(self) -> ProtocolError:
        """What its client is told at the end."""
        return self._quotas.minutes_used_up(self.principal)


class Quotas:
    """Usage of every key. file: where it outlives a restart, None to forget; files like FILES
    beside it are those of other replicas. `now` as time.time, `clock` as time.monotonic."""

    def __init__(
        self,
        file: Path | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._now = now
        self._clock = clock
        self._leases: set[Lease] = set()
        self._usage = self._read_own()
        self._written_s = clock()
        # Seconds by key that other replicas have written for the same day, as of `_read_s`.
        self._others: dict[str, float] = {}
        self._read_s = float("-inf")

    def sessions(self, name: str) -> int:
        """Open sessions of a key."""
        return sum(lease.principal.name == name for lease in self._leases)

    def remaining_s(self, principal: Principal) -> float | None:
        """What is left of today's minutes in seconds, live sessions included; None for no limit."""
        if principal.minutes_per_day is None:
            return None
        self._charge()
        counted = (self._usage.seconds, self._others)
        used = sum(seconds.get(principal.name, 0.0) for seconds in counted)
        return max(0.0, principal.minutes_per_day * 60 - used)

    @contextmanager
    def lease(self, principal: Principal) -> Iterator[Lease]:
        """Count a session while it lives. Raises ProtocolError `quota_exceeded`."""
        self.check(principal)
        lease = Lease(self, principal, self._clock())
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._charge()
            self._leases.discard(lease)
            self._write()

    def check(self, principal: Principal) -> None:
        """Whether one session more may live now. Raises ProtocolError `quota_exceeded`."""
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
        self._charge()
        if self._clock() - self._read_s >= READ_EVERY_S:
            self._read_others()
        remaining_s = self.remaining_s(principal)
        if remaining_s is not None and remaining_s <= 0:
            raise self.minutes_used_up(principal)

    def minutes_used_up(self, principal: Principal) -> ProtocolError:
        """The error of a key that has nothing left today."""
        next_day_s = (self._usage.day + 1) * DAY_S
        return ProtocolError(
            ErrorCode.QUOTA_EXCEEDED,
            f"{principal.name!r} has used its {principal.minutes_per_day:g} minutes of today "
            "(UTC); wait for the next day or raise minutes_per_day",
            retry_after_s=max(1.0, next_day_s - self._now()),
        )

    def _charge(self) -> None:
        """Bring every live session's usage up to now."""
        now_s, today_s = self._clock(), self._roll_over()
        for lease in self._leases:
            used_s, lease.charged_s = now_s - lease.charged_s, now_s
            name = lease.principal.name
            before_s = self._usage.seconds.get(name, 0.0)
            self._usage.seconds[name] = before_s + min(used_s, today_s)
        if now_s - self._written_s >= WRITE_EVERY_S:
            self._write()

    def _roll_over(self) -> float:
        """Begin to count anew on another day; returns the most that can have been used on it since
        sessions were charged last."""
        wall_s = self._now()
        day = int(wall_s // DAY_S)
        # A clock that is set back over midnight has not given the day back.
        if day in (self._usage.day, self._usage.day - 1):
            return float("inf")
        self._usage = _Usage(day=day)
        self._others = {}
        return wall_s - day * DAY_S

    def _read_own(self) -> _Usage:
        today = int(self._now() // DAY_S)
        usage = None if self._file is None else _read(self._file)
        return usage if usage is not None and usage.day == today else _Usage(day=today)

    def _read_others(self) -> None:
        """What the other replicas have used today; files of a week ago are removed."""
        self._read_s = self._clock()
        if self._file is None:
            return
        try:
            files = [path for path in self._file.parent.glob(FILES) if path != self._file]
        except OSError as error:
            log.warning("usage of other replicas not read", error=str(error))
            return
        self._others = {}
        for path in files:
            usage = _read(path)
            if usage is None:
                continue
            if usage.day == self._usage.day:
                for name, seconds in usage.seconds.items():
                    self._others[name] = self._others.get(name, 0.0) + seconds
            elif usage.day < self._usage.day - KEPT_DAYS:
                with suppress(OSError):  # another replica was faster
                    path.unlink()

    def _write(self) -> None:
        """A few hundred bytes, once a session and once a minute: no work for another thread."""
        self._written_s = self._clock()
        self._read_others()
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(self._usage))
            os.replace(part, self._file)
        except OSError as error:
            log.warning("usage file not written", error=str(error))


def _read(file: Path) -> _Usage | None:
    """What a file says, None when it is not there or damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Usage)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("usage file not read; counted as zero", file=file.name, error=str(error))
        return None
