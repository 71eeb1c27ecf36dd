"""Checks of what ends a session by itself, and of the figures that come while it lives."""

from __future__ import annotations

import asyncio

import msgspec

from visavis.server import events as ev
from visavis.server.conformance.model import Check, CheckFailedError, CheckSkippedError, require
from visavis.server.conformance.peer import Peer, Target, noise, session

LIMITS = "Limits"
# What a check is ready to wait for.
LONGEST_S = 60.0
# Between what was announced and what is seen, on a busy machine.
TOLERANCE_S = 3.0


def _limit(peer: Peer, name: str) -> float:
    seconds = float(peer.of_type("session.created")[0]["limits"][name])
    if seconds > LONGEST_S:
        raise CheckSkippedError(f"limits.{name} is {seconds:g} s, more than {LONGEST_S:g}")
    return seconds


async def _ends(peer: Peer, limit_s: float, reason: str, code: str, close: int) -> None:
    """Warned by session.expiring, told by an error, then closed, when it was announced."""
    expiring = await peer.event("session.expiring", limit_s + peer.target.timeout_s)
    require(expiring["reason"] == reason, f"session.expiring says {expiring}")
    deadline_s = expiring["deadline_s"]
    require(deadline_s > 0, f"deadline_s is {deadline_s}: the warning comes too late")
    loop = asyncio.get_running_loop()
    warned_s = loop.time()
    seen = await peer.end(deadline_s + peer.target.timeout_s)
    late_s = loop.time() - warned_s - deadline_s
    require(seen == close, f"the close code is {seen}, not {close}")
    errors = [e["error"]["code"] for e in peer.of_type("error")]
    require(errors == [code], f"the errors were {errors}")
    require(abs(late_s) <= TOLERANCE_S, f"the end came {late_s:+.1f} s off what was announced")


async def idle(target: Target) -> None:
    async with session(target) as peer:
        limit_s = _limit(peer, "idle_timeout_s")
        longest_s = float(peer.of_type("session.created")[0]["limits"]["max_session_s"])
        if longest_s <= limit_s:
            raise CheckSkippedError("the longest duration comes before")
        await _ends(peer, limit_s, "idle", "idle_timeout", 4408)


async def duration(target: Target) -> None:
    async with session(target) as peer:
        limit_s = _limit(peer, "max_session_s")
        idle_s = float(peer.of_type("session.created")[0]["limits"]["idle_timeout_s"])

        async def stay_awake() -> None:
            while True:
                await asyncio.sleep(idle_s / 4)
                await peer.send("session.ping", t=1)

        awake = asyncio.create_task(stay_awake()) if idle_s <= limit_s else None
        try:
            await _ends(peer, limit_s, "max_duration", "max_duration", 4410)
        finally:
            if awake:
                awake.cancel()


async def stats(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(0.6))
        await peer.event("response.done")
        event = await peer.event("session.stats")
        try:
            figures = msgspec.convert(event, ev.SessionStats)
        except msgspec.ValidationError as error:
            raise CheckFailedError(f"session.stats: {error}") from None
        counted = {
            "rtf": figures.rtf or 0,
            "gen_fps": figures.gen_fps,
            "queue_ms": figures.queue_ms,
            "encode_ms": figures.encode_ms,
            "dropped": figures.dropped,
        }
        wrong = {name: value for name, value in counted.items() if value < 0}
        require(not wrong, f"figures below zero: {wrong}")


CHECKS = (
    Check("stats.figures", "Server events", "session.stats comes, whole", stats),
    Check("limits.idle", LIMITS, "idle: warned, told, then 4408", idle, slow=True),
    Check("limits.duration", LIMITS, "too long: warned, told, then 4410", duration, slow=True),
)
