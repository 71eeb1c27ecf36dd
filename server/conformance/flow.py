"""Checks of flow control, in both directions."""

from __future__ import annotations

import asyncio

from visavis.server.conformance.model import Check, CheckSkippedError, require
from visavis.server.conformance.peer import (
    FRAMES,
    Event,
    Media,
    Peer,
    Target,
    audio_in,
    noise,
    session,
)

FLOW = "Flow control"
# What a check is ready to send, and to wait for.
LONGEST_BUFFER_MS = 120_000


def _limit(peer: Peer, name: str) -> float:
    return float(peer.of_type("session.created")[0]["limits"][name])


async def faster_than_real_time(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(3.0))
        await peer.event("response.started")
        require(not peer.of_type("error"), f"errors came: {peer.of_type('error')}")
        await peer.send("response.cancel")
        await peer.event("response.done")


async def overflow(target: Target) -> None:
    async with session(target) as peer:
        limit_ms = _limit(peer, "max_buffered_input_ms")
        if limit_ms > LONGEST_BUFFER_MS:
            raise CheckSkippedError(f"the server buffers {limit_ms / 1000:g} s of audio")
        second = noise(1.0)
        for seq in range(int(limit_ms / 1000 * 1.5) + 10):
            await peer.send_binary(audio_in(second, seq))
        body = (await peer.event("error"))["error"]
        codes = ("input_buffer_overflow", "input_rate_exceeded")
        require(body["code"] in codes, f"the error is {body}")
        require(body["retryable"] and body["retry_after_s"], f"when to retry is not said: {body}")
        appended = peer.of_type("input_audio_buffer.appended")
        most_ms = max((e["buffered_ms"] for e in appended), default=0.0)
        require(most_ms <= limit_ms, f"{most_ms} ms were buffered, {limit_ms} is the limit")
        await peer.send("response.cancel")
        await peer.event("response.done")


async def _use_up_credit(peer: Peer) -> Media:
    """Speaks, says that one frame was shown and nothing more, and reads until the server has
    stopped; that frame."""
    limit_ms = _limit(peer, "max_inflight_ms")
    first = await peer.frame(lambda m: True, "a frame")
    await peer.send("playback.update", pts_us=first.header.pts_us, seq=first.header.seq)
    await peer.speak(noise(limit_ms * 4 / 1000))
    try:
        # Long enough to see where it stops, and less than the grace of a slow client.
        grace_s = _limit(peer, "slow_client_s")
        async with asyncio.timeout(min(limit_ms * 3 / 1000 + 2, 0.8 * grace_s)):
            while await peer.read() is not None:
                pass
    except TimeoutError:
        pass
    return first


async def _give_credit(peer: Peer) -> None:
    """All that came was shown, and what comes will be."""
    peer.acknowledges = True
    last = peer.media[-1].header
    await peer.send("playback.update", pts_us=last.pts_us, seq=last.seq)


async def credit(target: Target) -> None:
    async with session(target) as peer:
        limit_ms = _limit(peer, "max_inflight_ms")
        first = await _use_up_credit(peer)
        pictures = [m for m in peer.media if m.video]
        frame_ms = 1000 / peer.fps
        seen_ms = (pictures[-1].header.pts_us - first.header.pts_us) / 1000 + frame_ms
        require(
            seen_ms <= limit_ms + 2 * frame_ms,
            f"{seen_ms:.0f} ms of pictures came without credit, {limit_ms:g} is the limit",
        )
        heard_ms = (peer.media[-1].header.pts_us - first.header.pts_us) / 1000
        require(
            heard_ms <= 2 * limit_ms + 2 * frame_ms,
            f"{heard_ms:.0f} ms of sound came without credit",
        )
        await _give_credit(peer)
        await peer.frame(lambda m: bool(m.video), "a picture after credit came")


async def dropped(target: Target) -> None:
    async with session(target) as peer:
        await _use_up_credit(peer)
        if all(m.video for m in peer.media):
            raise CheckSkippedError("the server left no picture out")
        await _give_credit(peer)

        def told() -> int:
            return sum(e["frames"] for e in peer.of_type("output.dropped"))

        def all_told(item: Event | Media) -> bool:
            missing = sum(not m.video for m in peer.media if m.header.kind in FRAMES)
            return isinstance(item, dict) and told() == missing

        if not all_told({}):
            await peer.until(all_told, "output.dropped for each picture that was left out")
        reasons = {e["reason"] for e in peer.of_type("output.dropped")}
        require(reasons <= {"slow_client", "late"}, f"the reasons are {reasons}")


async def no_credit(target: Target) -> None:
    async with session(target) as peer:
        first = await peer.frame(lambda m: True, "a frame")
        await peer.send("playback.update", pts_us=first.header.pts_us, seq=first.header.seq)
        grace_s = _limit(peer, "slow_client_s")
        code = await peer.end(grace_s + 2 * target.timeout_s)
        require(code == 4408, f"the close code is {code}")
        errors = [e["error"]["code"] for e in peer.of_type("error")]
        require(errors == ["slow_client"], f"the errors were {errors}")


CHECKS = (
    Check("flow.fast_input", FLOW, "audio may come faster than real time", faster_than_real_time),
    Check("flow.overflow", FLOW, "audio beyond the limit is refused", overflow),
    Check("flow.credit", FLOW, "media waits for playback.update", credit, slow=True),
    Check("flow.dropped", FLOW, "output.dropped counts pictures left out", dropped, slow=True),
    Check("flow.no_credit", FLOW, "a client without credit is closed", no_credit, slow=True),
)
