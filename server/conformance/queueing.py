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
from visavis.server.conformance.peer import Event, Peer, Target, connected

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


async def _ask(target: Target, stack: AsyncExitStack) -> tuple[Peer, Event]:
    """One more, and the first thing that it hears of a place: `session.queued`, an error, or
    `session.updated`: it has one."""
    peer = await stack.enter_async_context(connected(target))
    await peer.event("session.created")
    settings = {"avatar_id": target.avatar_id, "output": {"video": "jpeg"}}
    await peer.send("session.update", session=settings)
    kinds = ("session.queued", "session.updated", "error")
    heard = await peer.until(
        lambda item: isinstance(item, dict) and item["type"] in kinds, "a word of the place"
    )
    assert isinstance(heard, dict)
    return peer, heard


async def _fill(target: Target, stack: AsyncExitStack) -> tuple[list[Peer], Peer, Event]:
    """Sessions on all places that are free, then the first without one and what it is told.

    How many there are is not asked for: those of the check before may be about to come free.
    """
    await _free_places(target)
    holders: list[Peer] = []
    while len(holders) <= MOST_PLACES:
        peer, heard = await _ask(target, stack)
        if heard["type"] != "session.updated":
            return holders, peer, heard
        holders.append(peer)
    raise CheckSkippedError(f"more than {MOST_PLACES} places came free")


async def line(target: Target) -> None:
    async with AsyncExitStack() as stack:
        holders, first, heard = await _fill(target, stack)
        if not holders:
            raise CheckSkippedError("others have all the places")
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
        _, peer, heard = await _fill(target, stack)
        waiting = 0
        while heard["type"] != "error":
            waiting += 1
            if waiting > MOST_WAITING:
                raise CheckSkippedError(f"the line is longer than {MOST_WAITING}")
            peer, heard = await _ask(target, stack)
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
