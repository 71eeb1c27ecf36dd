"""Checks of barge-in."""

from __future__ import annotations

import asyncio
import base64

from visavis.server.conformance.model import Check, require
from visavis.server.conformance.peer import FRAMES, Media, Target, noise, session
from visavis.server.conformance.speech import check_done_once, check_timeline
from visavis.server.protocol import Flag

RESPONSES = "Responses"


async def while_idle(target: Target) -> None:
    async with session(target) as peer:
        for response_id in (None, "never-was"):
            await peer.send("response.cancel", response_id=response_id)
        await peer.alive()


async def while_speaking(target: Target) -> None:
    async with session(target, output={"video": "h264"}) as peer:
        await peer.speak(noise(4.0))
        await peer.frame(lambda m: not m.idle, "speech")
        await peer.send("response.cancel", event_id="stop", fade_ms=40)
        cleared = await peer.reply("output.cleared", "stop")
        require(cleared["epoch"] == 1, f"the epoch is {cleared['epoch']} after one cancel")
        done = await peer.event("response.done")
        require(done["status"] == "cancelled", f"status is {done['status']!r}")
        frame = await peer.frame(lambda m: m.header.kind in FRAMES, "the next frame")
        header = frame.header
        require(header.epoch == 1, f"a frame of epoch {header.epoch} came after output.cleared")
        require(
            header.pts_us == cleared["from_pts_us"],
            f"the next frame is at {header.pts_us}, announced was {cleared['from_pts_us']}",
        )
        marks = Flag.DISCONTINUITY | Flag.KEYFRAME
        require(header.flags & marks == marks, f"the first frame of an epoch has {header.flags!r}")
        for _ in range(10):
            await peer.frame(lambda m: m.header.kind in FRAMES, "a frame")
        check_timeline(peer)
        check_done_once(peer)


async def twice(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(3.0))
        await peer.frame(lambda m: not m.idle, "speech")
        for _ in range(2):
            await peer.send("response.cancel")
        await peer.alive()
        check_done_once(peer)


async def late_audio(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("input_audio_buffer.append", audio=_base64(noise(0.5)), response_id="old")
        await peer.event("response.created")
        await peer.send("response.cancel", response_id="old")
        await peer.event("response.done")
        await peer.send("input_audio_buffer.append", audio=_base64(noise(0.5)), response_id="old")
        await peer.send("input_audio_buffer.commit", response_id="old")
        await peer.alive()
        created = peer.of_type("response.created")
        require(len(created) == 1, f"late audio made a new response: {created}")


async def one_of_two(target: Target) -> None:
    first, second = noise(1.5, 1), noise(1.0, 2)
    async with session(target) as peer:
        for name, pcm in (("first", first), ("second", second)):
            await peer.send("input_audio_buffer.append", audio=_base64(pcm), response_id=name)
            await peer.send("input_audio_buffer.commit", response_id=name)
        await peer.frame(lambda m: not m.idle, "speech")
        await peer.send("response.cancel", response_id="second")
        done = [await peer.event("response.done") for _ in range(2)]
        ends = {e["response_id"]: e["status"] for e in done}
        require(ends == {"first": "completed", "second": "cancelled"}, f"they ended as {ends}")
        require(not peer.of_type("output.cleared"), "the one that plays was cleared as well")
        sound = b"".join(m.audio for m in peer.media if not m.idle)
        require(sound == first, "the sound is not that of the first one, whole and alone")
        check_timeline(peer)


async def again_and_again(target: Target) -> None:
    async with session(target) as peer:
        for turn in range(3):
            await peer.speak(noise(2.0, seed=turn))
            await peer.frame(lambda m: not m.idle, f"speech of turn {turn + 1}")
            await peer.send("response.cancel")
            await peer.event("response.done")
        pcm = noise(0.6, seed=9)
        await peer.speak(pcm)
        done = await peer.event("response.done")
        require(done["status"] == "completed", f"after three cancels: {done}")
        sound = b"".join(m.audio for m in peer.media if m.header.response == done["response_index"])
        require(sound == pcm, "the sound after three cancels is not what was sent")
        check_timeline(peer)
        check_done_once(peer)


async def prompt(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(4.0))
        await peer.frame(lambda m: not m.idle, "speech")
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        await peer.send("response.cancel", event_id="stop")
        position = len(peer.log)
        await peer.reply("output.cleared", "stop")
        seconds = loop.time() - start_s
        overtaken = sum(isinstance(item, Media) for item in peer.log[position:])
        require(
            seconds < 0.5,
            f"output.cleared took {seconds:.2f} s, {overtaken} frames came before it",
        )


def _base64(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


CHECKS = (
    Check("cancel.idle", RESPONSES, "a cancel is never an error", while_idle),
    Check("cancel.speaking", RESPONSES, "the epoch grows, nothing of the old one", while_speaking),
    Check("cancel.twice", RESPONSES, "two cancels make one done", twice),
    Check("cancel.late_audio", RESPONSES, "late audio of a cancelled id is dropped", late_audio),
    Check("cancel.by_id", RESPONSES, "one that waits is cancelled by its id alone", one_of_two),
    Check("cancel.again", RESPONSES, "speech works after several cancels", again_and_again),
    Check("cancel.prompt", RESPONSES, "output.cleared overtakes queued media", prompt),
)
