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
    audio_in,
    connected,
    noise,
    session,
)
from visavis.server.conformance.speech import check_timeline
from visavis.server.protocol import Flag

RESUMING = "Resuming"
# Two seconds, which is what comes again at most.
REPLAYED_FRAMES = 50
FRAME_US = 40_000


def _handle(peer: Peer) -> str:
    offer = peer.of_type("session.created")[0].get("resume")
    if not offer:
        raise CheckSkippedError("the server offers no resume")
    return str(offer["handle"])


def _last_seq(peer: Peer) -> int:
    return [m for m in peer.media if m.header.kind in FRAMES][-1].header.seq


def _distance(seq: int, other: int) -> int:
    """How many messages after `other` the message `seq` came; both wrap."""
    return ((seq - other + (1 << 31)) & 0xFFFF_FFFF) - (1 << 31)


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


async def received(target: Target) -> None:
    pcm, step = noise(0.9), 9_600
    parts = {5 + n: pcm[start : start + step] for n, start in enumerate(range(0, len(pcm), step))}
    async with session(target, on_disconnect="hold") as old:
        handle = _handle(old)
        await old.frame(lambda m: m.idle, "an idle frame")
        for seq, part in parts.items():
            await old.send_binary(audio_in(part, seq))
        await old.event("response.created")
        old.drop()
    async with connected(target) as new:
        resumed = await _resume(
            new,
            handle=handle,
            last_seq=_last_seq(old),
            last_event_id=old.events[-1]["event_id"],
        )
        seq = resumed["received_seq"]
        require(seq in parts, f"received_seq is {seq}, sent were {list(parts)}")
        for later in range(seq + 1, max(parts) + 1):
            await new.send_binary(audio_in(parts[later], later))
        await new.send("input_audio_buffer.commit")
        await new.event("response.done")
        _check_whole(old, new, resumed, pcm)


async def replay_is_bounded(target: Target) -> None:
    longer_us = (REPLAYED_FRAMES + 10) * FRAME_US
    async with session(target, on_disconnect="hold") as old:
        handle = _handle(old)
        await old.speak(noise(3.0))
        first = (await old.frame(lambda m: m.header.kind in FRAMES, "a frame")).header
        end_us = first.pts_us + longer_us
        await old.frame(lambda m: m.header.pts_us >= end_us, f"a frame at {end_us} us")
        old.drop()
    async with connected(target) as new:
        resumed = await _resume(new, handle=handle, last_seq=first.seq)
        again = _distance(_last_seq(old), resumed["from_seq"]) + 1
        require(again <= REPLAYED_FRAMES, f"{again} frames come again, more than two seconds")
        missing = _distance(resumed["from_seq"], first.seq) - 1
        lost = resumed["lost_frames"]
        require(lost == missing, f"lost_frames is {lost}, {missing} do not come again")
        frame = await new.frame(lambda m: m.header.kind in FRAMES, "media after session.resumed")
        seq = frame.header.seq
        require(seq == resumed["from_seq"], f"the next seq is {seq}, from_seq {resumed}")


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
    Check("resume.received", RESUMING, "received_seq says which audio was taken", received),
    Check("resume.bounded", RESUMING, "two seconds come again, more is counted", replay_is_bounded),
    Check("resume.keyframe", RESUMING, "a new page can decode what comes", without_a_decoder),
    Check("resume.wrong_handle", RESUMING, "a changed handle is refused with 4403", wrong_handle),
    Check("resume.end", RESUMING, "on_disconnect end keeps nothing", ended),
    Check("resume.closed", RESUMING, "session.close keeps nothing", closed_by_the_client),
    Check("resume.taken_over", RESUMING, "the older socket is closed with 4409", taken_over),
)
