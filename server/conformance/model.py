"""What a check is, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from visavis.server.conformance.peer import Target

Outcome = Literal["passed", "failed", "skipped"]


class CheckFailedError(Exception):
    """The server did something else than the protocol says."""


class CheckSkippedError(Exception):
    """The server does not offer what would be checked."""


@dataclass(frozen=True, slots=True)
class Check:
    """One law of the protocol. `section` names the heading of docs/protocol.md; `slow` ones wait
    for time limits of the server; `while_loading`: can be run before the server is ready."""

    name: str
    section: str
    text: str
    run: Callable[[Target], Awaitable[None]]
    slow: bool = False
    while_loading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check; `message` says what was seen instead, or why it was skipped."""

    name: str
    section: str
    text: str
    outcome: Outcome
    message: str
    seconds: float


def require(condition: object, message: str) -> None:
    """Raises CheckFailedError with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailedError(message)
