"""Checks of coming back after a lost connection."""

from __future__ import annotations

import asyncio
from typing import Any

from visavis.server.conformance.model import Check, CheckSkippedError, require
from visavis.server.conformance.peer import (
    FRAMES,
    Event,
    Media,
    Peer,
    Target,
    connected,
    noise,
    session,
)
from visavis.server.conformance.speech import check_timeline
from visavis.server.protocol import Flag

RESUMING = "Resuming"


def _handle(peer: Peer) -> str:
    offer = peer.of_type("session.created")[0].get("resume")
    if not offer:
        raise CheckSkippedError("the server offers no resume")
    return str(offer["handle"])


def _last_seq(peer: Peer) -> int:
    return [m for m in peer.media if m.header.kind in FRAMES][-1].header.seq


async def _resume(peer: Peer, **request: Any) -> Event:
    await peer.event("session.created")
    await peer.send("session.resume", event_id="back", **request)
    return await peer.reply("session.resumed", "back")


async def goes_on(target: Target) -> None:
    pcm = noise(3.0)
    output = {"video": "h264"}
    async with session(target, on_disconnect="hold", output=output) as old:
        handle = _handle(old)
        await old.speak(pcm)
        for _ in range(8):
            await old.frame(lambda m: not m.idle, "speech")
        old.drop()
    last_event = old.events[-1]["event_id"]
    async with connected(target) as new:
        resumed = await _resume(
            new, handle=handle, last_seq=_last_seq(old), last_event_id=last_event
        )
        if resumed["lost_frames"] == 0:
            expected = (_last_seq(old) + 1) & 0xFFFF_FFFF
            require(resumed["from_seq"] == expected, f"from_seq is {resumed['from_seq']}")
        first = await new.frame(lambda m: m.header.kind in FRAMES, "media after session.resumed")
        header = first.header
        require(header.seq == resumed["from_seq"], f"the next seq is {header.seq}")
        require(header.pts_us == resumed["from_pts_us"], f"the next pts_us is {header.pts_us}")
        require(Flag.DISCONTINUITY in header.flags, f"the first frame has {header.flags!r}")
        # Where the rate of pictures was lowered, sound may come alone at first.
        picture = first if first.video else await new.frame(lambda m: bool(m.video), "a picture")
        flags = picture.header.flags
        require(Flag.KEYFRAME in flags, f"the first picture has {flags!r}")
        await new.event("response.done")
        check_timeline(new)
        _check_whole(old, new, resumed, pcm)


def _check_whole(old: Peer, new: Peer, resumed: Event, pcm: bytes) -> None:
    """Both connections together are one session."""
    done = [e for peer in (old, new) for e in peer.of_type("response.done")]
    require(len({e["event_id"] for e in done}) == 1, f"response.done came as {done}")
    if resumed["lost_frames"] == 0:
        media: list[Media] = old.media + new.media
        sound = b"".join(m.audio for m in media if not m.idle)
        require(sound == pcm, "the sound of both connections is not what was sent")


async def without_a_decoder(target: Target) -> None:
    async with session(target, on_disconnect="hold", output={"video": "h264"}) as old:
        handle = _handle(old)
        await old.frame(lambda m: m.idle, "an idle frame")
        old.drop()
    async with connected(target) as new:
        await _resume(new, handle=handle)
        first = await new.frame(lambda m: bool(m.video), "a picture")
        require(Flag.KEYFRAME in first.header.flags, "a new page cannot decode the first picture")


async def wrong_handle(target: Target) -> None:
    async with session(target) as peer:
        handle = _handle(peer)
    changed = ("A" if handle[0] != "A" else "B") + handle[1:]
    async with connected(target) as peer:
        await peer.event("session.created")
        await peer.send("session.resume", handle=changed)
        await peer.error("invalid_resume_handle")
        code = await peer.end()
        require(code == 4403, f"the close code is {code}")


async def ended(target: Target) -> None:
    async with session(target, on_disconnect="end") as old:
        handle = _handle(old)
        old.drop()
    # The server may need a moment to notice.
    await asyncio.sleep(0.3)
    async with connected(target) as new:
        await new.event("session.created")
        await new.send("session.resume", handle=handle)
        await new.error("resume_expired")
        code = await new.end()
        require(code == 4404, f"the close code is {code}")


async def closed_by_the_client(target: Target) -> None:
    async with session(target, on_disconnect="hold") as old:
        handle = _handle(old)
        await old.send("session.close")
        await old.end()
    async with connected(target) as new:
        await new.event("session.created")
        await new.send("session.resume", handle=handle)
        await new.error("resume_expired")


async def taken_over(target: Target) -> None:
    async with session(target, on_disconnect="hold") as old:
        handle = _handle(old)
        await old.frame(lambda m: m.idle, "an idle frame")
        async with connected(target) as new:
            await _resume(new, handle=handle, last_seq=_last_seq(old))
            code = await old.end()
            require(code == 4409, f"the older socket was closed with {code}")
            last = old.of_type("error")[-1]["error"]["code"]
            require(last == "taken_over", f"the older socket was told {last!r}")
            await new.alive()


CHECKS = (
    Check("resume.continues", RESUMING, "speech goes on, nothing twice, nothing lost", goes_on),
    Check("resume.keyframe", RESUMING, "a new page can decode what comes", without_a_decoder),
    Check("resume.wrong_handle", RESUMING, "a changed handle is refused with 4403", wrong_handle),
    Check("resume.end", RESUMING, "on_disconnect end keeps nothing", ended),
    Check("resume.closed", RESUMING, "session.close keeps nothing", closed_by_the_client),
    Check("resume.taken_over", RESUMING, "the older socket is closed with 4409", taken_over),
)
