"""Checks of the pictures that were asked for: their format, size and rate, and keyframes."""

from __future__ import annotations

import struct
from typing import Any

from visavis.server.conformance.containers import boxes, decode_time, jpeg_size, timescale
from visavis.server.conformance.model import Check, CheckFailedError, CheckSkippedError, require
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
from visavis.server.protocol import Flag, Kind

SIZES = "Size and rate"
BINARY = "Binary messages"
EVENTS = "Client events"
# Frames of the timeline, of 40 ms each.
A_SECOND = 25
FRAME_US = 40_000
# A keyframe that is asked for is there sooner than the one that comes anyway.
SOON_FRAMES = 35
KEYFRAME_EVERY_US = 2_000_000


def _offer(peer: Peer) -> Event:
    offer = peer.of_type("session.created")[0].get("output")
    if not isinstance(offer, dict):
        raise CheckSkippedError("the server does not say what can be asked for")
    return offer


async def _refused(peer: Peer, target: Target, param: str, **output: Any) -> None:
    settings = {"avatar_id": target.avatar_id, "output": {"video": "jpeg"} | output}
    await peer.send("session.update", event_id="wrong", session=settings)
    body = await peer.error("unsupported_value")
    require(body.get("param") == param, f"error.param is {body.get('param')!r}, not {param!r}")
    require(body.get("event_id") == "wrong", f"error.event_id is {body.get('event_id')!r}")


async def wrong_rate(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        for fps in (24.9, 0, 1_000):
            await _refused(peer, target, "session.output.fps", fps=fps)
        await peer.configure()


async def wrong_size(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        offer = _offer(peer)
        for side in ("width", "height"):
            param = f"session.output.{side}"
            await _refused(peer, target, param, **{side: offer[f"max_{side}"] + 2})
            await _refused(peer, target, param, **{side: offer[f"min_{side}"] - 2})
        await _refused(peer, target, "session.output.width", width=offer["width"] - 1)
        await peer.configure()


async def size(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        offer = _offer(peer)
        asked = offer["min_width"]
        updated = await peer.configure(output={"video": "jpeg", "width": asked})
        output = updated["session"]["output"]
        require(output["width"] == asked, f"output.width is {output['width']}, asked was {asked}")
        shape = offer["height"] / offer["width"]
        require(
            abs(output["height"] - asked * shape) <= 2,
            f"{asked}x{output['height']} is not the shape of {offer['width']}x{offer['height']}",
        )
        frame = await peer.frame(lambda m: bool(m.video), "a picture")
        try:
            seen = jpeg_size(frame.video)
        except ValueError as error:
            raise CheckFailedError(str(error)) from None
        said = (output["width"], output["height"])
        require(seen == said, f"the picture is {seen}, session.updated says {said}")


async def rate(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        rates = _offer(peer)["fps"]
        fps = min(rates)
        if fps >= A_SECOND:
            raise CheckSkippedError(f"the server offers no other rates than {rates}")
        updated = await peer.configure(output={"video": "jpeg", "fps": fps})
        said = updated["session"]["output"]["fps"]
        require(said == fps, f"output.fps is {said}, asked was {fps}")
        await peer.speak(noise(2.0))
        await peer.event("response.done")
        frames = [m for m in peer.media if m.header.kind in FRAMES]
        spoken = [m for m in frames if not m.idle]
        require(len(spoken) == 2 * A_SECOND, f"{len(spoken)} frames came for 2 s of speech")
        require(all(m.audio for m in spoken), "a frame of speech brings no sound")
        require(spoken[0].video, "the first frame of the response has no picture")
        steps = {
            b.header.pts_us - a.header.pts_us for a, b in zip(frames, frames[1:], strict=False)
        }
        require(steps <= {FRAME_US}, f"frames are {sorted(steps)} us apart, not {FRAME_US}")
        pictures, expected = sum(bool(m.video) for m in spoken), 2 * fps
        # One more, for the first of a response always has one.
        require(
            abs(pictures - expected) <= 1.5, f"{pictures} pictures came in 2 s at {fps:g} a second"
        )


async def keyframe(target: Target) -> None:
    async with session(target, output={"video": "h264"}) as peer:

        async def picture() -> Media:
            return await peer.frame(lambda m: bool(m.video), "a picture")

        while Flag.KEYFRAME not in (await picture()).header.flags:
            pass
        # So many more are sent ahead that none of them can be the one that was asked for.
        for _ in range(3):
            await picture()
        await peer.send("output.request_keyframe")
        for _ in range(SOON_FRAMES):
            if Flag.KEYFRAME in (await picture()).header.flags:
                break
        else:
            raise CheckFailedError(f"no keyframe in {SOON_FRAMES} pictures after it was asked for")
        await peer.alive()


async def group_of_pictures(target: Target) -> None:
    async with session(target, output={"video": "h264"}) as peer:

        def is_keyframe(media: Media) -> bool:
            return bool(media.video) and Flag.KEYFRAME in media.header.flags

        first = await peer.frame(is_keyframe, "a keyframe")
        last_us = first.header.pts_us + KEYFRAME_EVERY_US
        # The next one, or the first frame that is too late to be it.
        found = await peer.frame(
            lambda m: is_keyframe(m) or m.header.pts_us > last_us + FRAME_US, "the next keyframe"
        )
        require(is_keyframe(found), "two seconds after a keyframe there was no other")


async def fmp4(target: Target) -> None:
    async with connected(target) as peer:
        await peer.event("session.created")
        if "fmp4" not in _offer(peer)["video"]:
            raise CheckSkippedError("the server offers no fmp4")
        await peer.configure(output={"video": "fmp4"})
        await peer.speak(noise(0.6))
        await peer.event("response.done")
        try:
            _check_fragments([m for m in peer.media if m.header.kind != Kind.AUDIO_IN])
        except (ValueError, struct.error) as error:
            raise CheckFailedError(f"that is no fragmented MP4: {error}") from None


def _check_fragments(media: list[Media]) -> None:
    """An initialisation segment, then a fragment for each frame on the session's timeline."""
    first, *rest = media
    kind = first.header.kind
    require(kind == Kind.CODEC_CONFIG, f"the first message is of kind {kind}, not CODEC_CONFIG")
    names = [name for name, _ in boxes(first.video)]
    require(names[:1] == ["ftyp"] and "moov" in names, f"the initialisation has {names}")
    require(rest, "no frame came")
    seqs = (first.header.seq, rest[0].header.seq)
    require(seqs[0] == seqs[1], f"CODEC_CONFIG has seq {seqs[0]}, the frame after it {seqs[1]}")
    require(Flag.KEYFRAME in rest[0].header.flags, "the first fragment is no keyframe")
    ticks = timescale(first.video)
    fragments = [m for m in rest if m.header.kind == Kind.FMP4]
    require(fragments, "no FMP4 message came")
    for item in fragments:
        if not item.video:
            continue
        names = [name for name, _ in boxes(item.video)]
        require("moof" in names and names[-1:] == ["mdat"], f"a fragment has {names}")
        seconds = decode_time(item.video) / ticks
        place = item.header.pts_us / 1e6
        require(
            abs(seconds - place) < 0.001,
            f"the fragment at {place:g} s says {seconds:g} s of itself",
        )
    require(any(m.audio for m in fragments), "the fragments bring no sound beside them")


CHECKS = (
    Check("session.fps", SIZES, "a rate that there is not is refused and named", wrong_rate),
    Check("session.size", SIZES, "a size out of bounds is refused and named", wrong_size),
    Check("media.size", SIZES, "pictures have the size that was asked for", size),
    Check("media.fps", SIZES, "pictures come as often as was asked for, sound as ever", rate),
    Check("media.keyframe", EVENTS, "a keyframe comes when it is asked for", keyframe),
    Check("media.gop", BINARY, "H.264 has a keyframe every two seconds", group_of_pictures),
    Check("media.fmp4", BINARY, "fmp4: initialisation, then fragments in their place", fmp4),
)
