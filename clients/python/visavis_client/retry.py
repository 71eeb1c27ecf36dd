"""When to try again: growing waits with jitter, and never sooner than the server asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from visavis_client.errors import AvatarError, ConnectionFailedError, ServerError, TimedOutError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """At most `attempts` in all; waits double from `first_s` up to `longest_s`.

    Each wait is drawn evenly between half of it and all of it, so that clients which lost the same
    server do not come back in the same instant. A `retry_after_s` of the server is waited for if it
    is no longer than `longest_s`; else the error is raised at once.
    """

    attempts: int = 3
    first_s: float = 0.25
    longest_s: float = 8.0
    random: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.first_s <= self.longest_s:
            raise ValueError(
                f"attempts={self.attempts}, first_s={self.first_s}, longest_s={self.longest_s}: "
                "at least 1 attempt, and 0 < first_s <= longest_s"
            )

    def waits_s(self) -> Iterator[float]:
        """The waits between attempts, without end."""
        wait_s = self.first_s
        while True:
            yield wait_s * (0.5 + 0.5 * self.random())
            wait_s = min(2 * wait_s, self.longest_s)

    def plan(self) -> Retries:
        """The attempts of one call."""
        return Retries(self)


NEVER = Retry(attempts=1)


class Retries:
    """Counts the attempts of one call."""

    def __init__(self, policy: Retry) -> None:
        self._policy = policy
        self._left = policy.attempts - 1
        self._waits_s = policy.waits_s()

    def wait_s(self, error: AvatarError) -> float | None:
        """How long to wait before the next attempt; None when `error` is to be raised."""
        if self._left <= 0 or not worth_retrying(error):
            return None
        self._left -= 1
        wait_s = next(self._waits_s)
        asked_s = getattr(error, "retry_after_s", None)
        if asked_s is None:
            return wait_s
        return max(wait_s, asked_s) if asked_s <= self._policy.longest_s else None


def worth_retrying(error: AvatarError) -> bool:
    """Whether the same call may work later."""
    if isinstance(error, ServerError):
        return error.retryable
    return isinstance(error, (ConnectionFailedError, TimedOutError))
