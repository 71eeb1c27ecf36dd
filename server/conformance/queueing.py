"""Checks of a server whose places are all taken."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.request import Request, urlopen

from visavis.server.conformance.address import http_base
from visavis.server.conformance.model import (
    Check,
    CheckFailedError,
    CheckSkippedError,
    require,
)
from visavis.server.conformance.peer import Event, Peer, Target, connected, session

EVENTS = "Server events"
# More connections than these are no fair thing to ask of a server for a check.
MOST_PLACES = 8
MOST_WAITING = 32


async def _free_places(target: Target) -> int:
    """How many sessions can be opened. Raises CheckSkippedError when these are many."""

    def ask() -> Event:
        headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
        request = Request(f"{http_base(target.url)}/v1/realtime/capacity", headers=headers)
        with urlopen(request, timeout=target.timeout_s) as reply:
            body: Event = json.load(reply)
            return body

    try:
        capacity = await asyncio.to_thread(ask)
        free = int(capacity["max"]) - int(capacity["active"])
    except (OSError, ValueError) as error:
        raise CheckFailedError(f"GET /v1/realtime/capacity: {error}") from None
    if free > MOST_PLACES:
        raise CheckSkippedError(f"{free} places are free, more than {MOST_PLACES}")
    return free


async def _fill(target: Target, stack: AsyncExitStack) -> list[Peer]:
    """A session on each place that is free."""
    free = await _free_places(target)
    return [await stack.enter_async_context(session(target)) for _ in range(free)]


async def _ask(target: Target, stack: AsyncExitStack) -> tuple[Peer, Event]:
    """One more, and the first thing that it hears of a place: `session.queued`, or an error."""
    peer = await stack.enter_async_context(connected(target))
    await peer.event("session.created")
    settings = {"avatar_id": target.avatar_id, "output": {"video": "jpeg"}}
    await peer.send("session.update", session=settings)
    kinds = ("session.queued", "session.updated", "error")
    heard = await peer.until(
        lambda item: isinstance(item, dict) and item["type"] in kinds, "a word of the place"
    )
    assert isinstance(heard, dict)
    if heard["type"] == "session.updated":
        raise CheckSkippedError("more places came free than were said")
    return peer, heard


async def line(target: Target) -> None:
    async with AsyncExitStack() as stack:
        holders = await _fill(target, stack)
        if not holders:
            raise CheckSkippedError("others have all the places")
        first, heard = await _ask(target, stack)
        if heard["type"] == "error":
            raise CheckSkippedError("the server lets nobody wait")
        require(heard["position"] == 1, f"the first in line is told {heard}")
        second, heard = await _ask(target, stack)
        if heard["type"] == "session.queued":
            require(heard["position"] == 2, f"the second in line is told {heard}")
        await first.alive()
        await holders[0].send("session.close")
        await first.event("session.updated")
        if heard["type"] == "session.queued":
            moved = await second.event("session.queued")
            require(moved["position"] == 1, f"who moves up is told {moved}")


async def full(target: Target) -> None:
    async with AsyncExitStack() as stack:
        await _fill(target, stack)
        for _ in range(MOST_WAITING):
            peer, heard = await _ask(target, stack)
            if heard["type"] == "error":
                break
        else:
            raise CheckSkippedError(f"the line is longer than {MOST_WAITING}")
        body = heard["error"]
        codes = ("capacity", "quota_exceeded")
        require(body["code"] in codes, f"the error is {body}")
        require(body["retryable"] and body["retry_after_s"], f"when to retry is not said: {body}")
        code = await peer.end()
        require(code == 4429, f"the close code is {code}")


CHECKS = (
    Check("queue.line", EVENTS, "session.queued says the place, and when it changes", line),
    Check("queue.full", "Errors", "no place in line either: told, then 4429", full),
)
