"""Runs the checks one after the other and reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec
from rich.console import Console
from rich.markup import escape
from websockets.exceptions import WebSocketException

from visavis.server.conformance import (
    access,
    flow,
    handshake,
    interruption,
    limits,
    messages,
    output,
    queueing,
    resuming,
    speech,
)
from visavis.server.conformance.model import (
    Check,
    CheckFailedError,
    CheckSkippedError,
    Outcome,
    Result,
)
from visavis.server.conformance.peer import Target, connected

CHECKS: tuple[Check, ...] = (
    *handshake.CHECKS,
    *messages.CHECKS,
    *speech.CHECKS,
    *output.CHECKS,
    *interruption.CHECKS,
    *flow.CHECKS,
    *resuming.CHECKS,
    *access.CHECKS,
    *queueing.CHECKS,
    *limits.CHECKS,
)
# A check reads many answers, each with a limit of its own.
MAX_ANSWERS = 6
_MARKS = {"passed": "[green]pass[/]", "failed": "[red]FAIL[/]", "skipped": "[yellow]skip[/]"}


def select(only: str | None = None, *, quick: bool = False) -> list[Check]:
    """Checks whose name begins with `only`. Raises ValueError when none does."""
    chosen = [c for c in CHECKS if c.name.startswith(only or "") and not (quick and c.slow)]
    if not chosen:
        groups = sorted({check.name.partition(".")[0] for check in CHECKS})
        raise ValueError(f"only={only!r} names no check; there are {', '.join(groups)}")
    return chosen


async def run_check(check: Check, target: Target) -> Result:
    """One check; whatever happens becomes its result."""
    started = time.monotonic()
    outcome: Outcome = "passed"
    message = ""
    try:
        async with asyncio.timeout(target.timeout_s * MAX_ANSWERS):
            await check.run(target)
    except CheckSkippedError as error:
        outcome, message = "skipped", str(error)
    except CheckFailedError as error:
        outcome, message = "failed", str(error)
    except TimeoutError:
        outcome, message = "failed", "the check did not come to its end in time"
    except (WebSocketException, OSError, LookupError, TypeError) as error:
        # A field that is missing or of another type shows here.
        outcome, message = "failed", f"{type(error).__name__}: {error}"
    return Result(
        name=check.name,
        section=check.section,
        text=check.text,
        outcome=outcome,
        message=message,
        seconds=round(time.monotonic() - started, 3),
    )


async def not_ready(target: Target) -> str | None:
    """Why no check can say anything yet: nobody there, or a server that serves nobody now."""
    try:
        async with asyncio.timeout(target.timeout_s), connected(target) as peer:
            while (item := await peer.read()) is not None:
                if isinstance(item, dict) and item["type"] == "session.created":
                    return None
                if isinstance(item, dict) and item["type"] == "error":
                    return f"{item['error']['code']}: {item['error']['message']}"
            return f"the socket was closed ({peer.close_code}) before anything was said"
    except TimeoutError:
        return f"nothing was said within {target.timeout_s:g} s"
    except WebSocketException as error:
        return f"{type(error).__name__}: {error}"
    except (CheckFailedError, LookupError, TypeError) as error:
        # What it says is wrong: the checks will tell in their own words.
        return str(error) if isinstance(error.__cause__, OSError) else None


async def run_checks(
    checks: Iterable[Check], target: Target, on_result: Callable[[Result], None]
) -> list[Result]:
    """All of them in turn; `on_result` hears of each."""
    results = []
    for check in checks:
        results.append(await run_check(check, target))
        on_result(results[-1])
    return results


def print_result(console: Console, result: Result) -> None:
    """A line, and what was wrong on a second one."""
    console.print(
        f"{_MARKS[result.outcome]}  {result.name:<22} {escape(result.text)} "
        f"[dim]({result.section})[/]",
        highlight=False,
        soft_wrap=True,
    )
    if result.message:
        console.print(f"      {escape(result.message)}", highlight=False, soft_wrap=True)


def report_json(target: Target, results: list[Result]) -> bytes:
    """The report for machines."""
    counts = {name: sum(r.outcome == name for r in results) for name in _MARKS}
    body = {"url": target.url, **counts, "checks": results}
    return msgspec.json.format(msgspec.json.encode(body)) + b"\n"
