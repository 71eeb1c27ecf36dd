"""Checks of responses and media: the timeline, the caller's own audio, each response done once."""

from __future__ import annotations

import base64
import math

from visavis.server.conformance.model import Check, CheckFailedError, require
from visavis.server.conformance.peer import FRAMES, RATE, Event, Media, Peer, Target, noise, session
from visavis.server.h264_stream import codec_string
from visavis.server.protocol import Flag

RESPONSES = "Responses"
TIMELINE = "Timeline"
BINARY = "Binary messages"


def check_timeline(peer: Peer) -> None:
    """Places and sequence numbers of all media so far have no gap and no jump."""
    step_us = round(1e6 / peer.fps)
    media = [m for m in peer.media if m.header.kind in FRAMES]
    for before, after in zip(media, media[1:], strict=False):
        seqs = (before.header.seq, after.header.seq)
        require(seqs[1] == (seqs[0] + 1) & 0xFFFF_FFFF, f"seq goes from {seqs[0]} to {seqs[1]}")
        places = (before.header.pts_us, after.header.pts_us)
        require(
            abs(places[1] - places[0] - step_us) <= 1,
            f"pts_us goes from {places[0]} to {places[1]}, one frame is {step_us}",
        )
        epochs = (before.header.epoch, after.header.epoch)
        require(epochs[0] <= epochs[1], f"the epoch goes from {epochs[0]} to {epochs[1]}")


def check_done_once(peer: Peer) -> None:
    """Every response.created has one response.done."""
    created = [e["response_id"] for e in peer.of_type("response.created")]
    done = [e["response_id"] for e in peer.of_type("response.done")]
    require(sorted(created) == sorted(done), f"created: {created}, done: {done}")


async def idle(target: Target) -> None:
    async with session(target) as peer:
        for _ in range(12):
            await peer.frame(lambda m: m.header.kind in FRAMES, "an idle frame")
        for media in peer.media:
            header = media.header
            require(media.idle and header.response == 0, f"not an idle frame: {header}")
            require(not any(media.audio), "an idle frame is not silent")
            require(header.header_len == 32, f"header_len is {header.header_len}")
        check_timeline(peer)


async def life(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(0.7))
        done = await peer.event("response.done")
        index = done["response_index"]
        marks: list[str] = []
        for item in peer.log:
            if isinstance(item, Media):
                if item.header.response == index:
                    marks += [
                        str(f.name) for f in (Flag.FIRST, Flag.LAST) if f in item.header.flags
                    ]
            elif item["type"].startswith("response."):
                marks.append(item["type"])
        expected = ["response.created", "response.started", "FIRST", "LAST", "response.done"]
        require(marks == expected, f"the order was {marks}, not {expected}")
        require(done["status"] == "completed", f"status is {done['status']!r}")
        require(done["generated_ms"] == done["sent_ms"], f"generated and sent differ: {done}")
        require(done["played_ms"] is None, f"played_ms is {done['played_ms']} without any word")
        check_timeline(peer)


async def states(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(0.5))
        await peer.event("response.done")
        await peer.frame(lambda m: m.idle, "an idle frame after speech")
        seen = [e["state"] for e in peer.of_type("avatar.state_changed")]
        require(seen == ["speaking", "idle"], f"the states were {seen}")
        started = peer.of_type("response.started")[0]
        changed = peer.of_type("avatar.state_changed")[0]
        require(changed["pts_us"] == started["pts_us"], "speaking begins elsewhere than speech")


def _spoken(peer: Peer, done: Event) -> list[Media]:
    index = done["response_index"]
    return [m for m in peer.media if m.header.response == index]


async def own_audio(target: Target) -> None:
    async with session(target) as peer:
        pcm = noise(1.23)
        await peer.speak(pcm, piece=6_002)
        frames = _spoken(peer, await peer.event("response.done"))
        expected = math.ceil(len(pcm) / 2 * peer.fps / RATE)
        require(len(frames) == expected, f"{len(frames)} frames came for {expected}")
        require(b"".join(f.audio for f in frames) == pcm, "the sound is not what was sent")


async def base64_twin(target: Target) -> None:
    async with session(target) as peer:
        pcm = noise(0.5)
        text = base64.b64encode(pcm).decode()
        await peer.send("input_audio_buffer.append", audio=text, response_id="mine")
        await peer.send("input_audio_buffer.commit", response_id="mine", event_id="c")
        committed = await peer.reply("input_audio_buffer.committed", "c")
        require(committed["response_id"] == "mine", f"the id became {committed['response_id']!r}")
        done = await peer.event("response.done")
        require(done["response_id"] == "mine", f"the id became {done['response_id']!r}")
        sound = b"".join(f.audio for f in _spoken(peer, done))
        require(sound == pcm, "the sound is not what was sent")


async def two_in_a_row(target: Target) -> None:
    async with session(target) as peer:
        first, second = noise(0.5, 1), noise(0.5, 2)
        await peer.speak(first)
        await peer.speak(second)
        done = [await peer.event("response.done") for _ in range(2)]
        indices = [e["response_index"] for e in done]
        require(indices == [1, 2], f"response_index counts {indices}")
        for event, pcm in zip(done, (first, second), strict=True):
            sound = b"".join(f.audio for f in _spoken(peer, event))
            require(sound == pcm, f"the sound of response {event['response_index']} is wrong")
        check_timeline(peer)
        check_done_once(peer)


async def played(target: Target) -> None:
    async with session(target) as peer:
        peer.acknowledges = True
        await peer.frame(lambda m: m.idle, "an idle frame")
        await peer.speak(noise(0.6))
        done = await peer.event("response.done")
        require(done["played_ms"] == done["sent_ms"], f"all was shown, but done says {done}")


async def clear(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("input_audio_buffer.clear", event_id="nothing")
        cleared = await peer.reply("input_audio_buffer.cleared", "nothing")
        require(cleared["dropped_ms"] == 0, f"dropped_ms is {cleared['dropped_ms']} of nothing")
        await peer.speak(noise(0.3), commit=False)
        await peer.event("response.created")
        await peer.send("input_audio_buffer.clear")
        await peer.event("input_audio_buffer.cleared")
        await peer.speak(noise(0.3))
        await peer.event("response.done")
        await peer.alive()


async def not_found(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(0.3), commit=False)
        response_id = (await peer.event("response.created"))["response_id"]
        await peer.send("input_audio_buffer.commit", event_id="x", response_id="never-was")
        body = await peer.error("response_not_found")
        require(body.get("event_id") == "x", f"error.event_id is {body.get('event_id')!r}")
        await peer.send("input_audio_buffer.commit", event_id="own", response_id=response_id)
        await peer.reply("input_audio_buffer.committed", "own")
        audio = base64.b64encode(noise(0.1)).decode()
        await peer.send("input_audio_buffer.append", audio=audio, response_id=response_id)
        await peer.error("response_not_found")
        await peer.send("response.cancel")
        await peer.event("response.done")
        check_done_once(peer)


async def h264(target: Target) -> None:
    async with session(target, output={"video": "h264"}) as peer:
        updated = peer.of_type("session.updated")[0]["session"]["output"]
        await peer.speak(noise(0.5))
        await peer.event("response.done")
        media = [m for m in peer.media if m.video]
        require(media, "no picture came")
        first = media[0]
        require(Flag.KEYFRAME in first.header.flags, "the first picture is no keyframe")
        for item in media:
            if Flag.KEYFRAME in item.header.flags:
                try:
                    codec = codec_string(item.video)
                except ValueError as error:
                    raise CheckFailedError(f"a keyframe without parameter sets: {error}") from None
                require(codec == updated["codec"], f"codec is {codec}, not {updated['codec']}")
            require(item.video.startswith(b"\x00\x00"), "the video is not Annex B")


async def jpeg(target: Target) -> None:
    async with session(target) as peer:
        frame = await peer.frame(lambda m: bool(m.video), "a picture")
        require(frame.video[:2] == b"\xff\xd8", "the picture is no JPEG")
        require(Flag.KEYFRAME in frame.header.flags, "a JPEG is not marked as a keyframe")


async def sound_only(target: Target) -> None:
    async with session(target, output={"video": "none"}) as peer:
        frame = await peer.frame(lambda m: m.header.kind in FRAMES, "a frame")
        require(not frame.video, f"a picture of {len(frame.video)} bytes came")
        require(frame.audio, "no sound came")


async def drain_close(target: Target) -> None:
    async with session(target) as peer:
        pcm = noise(0.6)
        await peer.speak(pcm)
        await peer.send("session.close", drain=True)
        code = await peer.end()
        require(code == 1000, f"the close code is {code}")
        done = peer.of_type("response.done")
        require(done and done[0]["status"] == "completed", f"what was committed ended as {done}")
        sound = b"".join(m.audio for m in peer.media if not m.idle)
        require(sound == pcm, "not all of it was spoken")


CHECKS = (
    Check("media.idle", TIMELINE, "idle frames flow, silent and without a gap", idle),
    Check("media.h264", BINARY, "H.264: keyframe first, parameter sets in each", h264),
    Check("media.jpeg", BINARY, "JPEG: every frame stands alone", jpeg),
    Check("media.none", BINARY, "none: sound without pictures", sound_only),
    Check("response.order", RESPONSES, "created, started, first, last, done", life),
    Check("response.states", "Server events", "the state follows what is shown", states),
    Check("response.audio", RESPONSES, "the caller's own samples come back", own_audio),
    Check("response.base64", "Client events", "append does the same as AUDIO_IN", base64_twin),
    Check("response.queue", RESPONSES, "utterances are spoken one after the other", two_in_a_row),
    Check("response.played", RESPONSES, "played_ms is what the client said", played),
    Check("response.clear", "Client events", "clear drops what was not taken", clear),
    Check("response.not_found", "Errors", "an id that is not open, or was used", not_found),
    Check("session.drain", "Client events", "close with drain speaks to the end", drain_close),
)
