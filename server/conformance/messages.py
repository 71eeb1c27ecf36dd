"""Checks of single messages: known ones are answered, unknown ones ignored, wrong ones refused."""

from __future__ import annotations

import asyncio
import base64
import json
import struct

from visavis.server.conformance.model import Check, require
from visavis.server.conformance.peer import (
    RATE,
    Target,
    audio_in,
    connected,
    noise,
    session,
)
from visavis.server.errors import ERRORS
from visavis.server.protocol import HEADER, Header, encode_frame

RULES = "Rules for both sides"
ERROR_SECTION = "Errors"
APPENDED_A_SECOND = 2
# What a network may do to the distance of two events.
JITTER_S = 0.25


async def ping(target: Target) -> None:
    async with session(target) as peer:
        times = []
        for t in (1, "two", 3.5, None):
            await peer.send("session.ping", event_id=f"ping-{t}", t=t)
            pong = await peer.reply("session.pong", f"ping-{t}")
            require(pong["t"] == t, f"t={t!r} came back as {pong['t']!r}")
            times.append(pong["server_time_us"])
        require(times == sorted(times), f"server_time_us went back: {times}")


async def listening(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("avatar.set_state", event_id="listen", state="listening")
        changed = await peer.reply("avatar.state_changed", "listen")
        require(changed["state"] == "listening", f"state is {changed['state']!r}")


async def event_ids(target: Target) -> None:
    async with session(target) as peer:
        await peer.speak(noise(0.4))
        await peer.event("response.done")
        ids = [event.get("event_id") for event in peer.events]
        require(all(ids), f"an event has no event_id: {ids}")
        require(len(set(ids)) == len(ids), f"an event_id came twice: {ids}")


async def appended(target: Target) -> None:
    async with session(target) as peer:
        loop, pcm, step = asyncio.get_running_loop(), noise(1.6), RATE // 20 * 2
        times: list[float] = []
        heard = [0.0]

        async def speak() -> None:
            for seq, start in enumerate(range(0, len(pcm), step)):
                await peer.send_binary(audio_in(pcm[start : start + step], seq))
                await asyncio.sleep(0.05)
            await peer.send("input_audio_buffer.commit", event_id="end")

        speaking = asyncio.create_task(speak())
        try:
            kinds = ("input_audio_buffer.appended", "input_audio_buffer.committed")
            while True:
                event = await peer.until(
                    lambda item: isinstance(item, dict) and item["type"] in kinds, kinds[0]
                )
                assert isinstance(event, dict)
                if event["type"] == kinds[1]:
                    break
                times.append(loop.time())
                heard.append(event["received_ms"])
        finally:
            speaking.cancel()
        require(times, "no input_audio_buffer.appended came")
        seconds = times[-1] - times[0]
        require(
            len(times) - 1 <= APPENDED_A_SECOND * (seconds + JITTER_S),
            f"{len(times)} of them came in {seconds:.1f} s, more than two a second",
        )
        require(heard == sorted(heard) and heard[-1] <= 1600, f"received_ms goes {heard}")
        await peer.send("response.cancel")
        await peer.event("response.done")


async def unknown_event(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("session.teleport", event_id="x", where={"deep": [1, 2]})
        await peer.alive()


async def unknown_field(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("session.ping", event_id="p", t=1, a_field_of_tomorrow={"x": []})
        await peer.reply("session.pong", "p")
        require(not peer.of_type("error"), f"errors came: {peer.of_type('error')}")


async def unknown_kind(target: Target) -> None:
    async with session(target) as peer:
        await peer.send_binary(encode_frame(Header(kind=200, audio_len=2), b"ab", b""))
        await peer.alive()


async def longer_header(target: Target) -> None:
    async with session(target) as peer:
        pcm = noise(0.2)
        header = HEADER.pack(1, 0, 40, 0, 0, 0, 0, len(pcm), 0)
        await peer.send_binary(header + bytes(8) + pcm)
        await peer.send("input_audio_buffer.commit")
        committed = await peer.event("input_audio_buffer.committed")
        duration = committed["duration_ms"]
        require(abs(duration - 200) < 1, f"duration_ms is {duration}, not 200")


async def invalid_json(target: Target) -> None:
    async with session(target) as peer:
        for text in ("{", "[]", '"x"', '{"type": 3}', "null"):
            await peer.send_text(text)
            await peer.error("invalid_json")
        await peer.alive()


async def invalid_event(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("avatar.set_state", event_id="fly", state="flying")
        body = await peer.error("invalid_event")
        require(body.get("param") == "state", f"error.param is {body.get('param')!r}")
        require(body.get("event_id") == "fly", f"error.event_id is {body.get('event_id')!r}")
        await peer.alive()


async def error_shape(target: Target) -> None:
    async with session(target) as peer:
        await peer.send_text("{")
        body = await peer.error("invalid_json")
        for name in ("type", "code", "message", "param", "event_id", "retryable", "retry_after_s"):
            require(name in body, f"the error has no {name}: {json.dumps(body)}")
        types = {str(spec.type) for spec in ERRORS.values()}
        require(body["type"] in types, f"error.type is {body['type']!r}")


async def invalid_frame(target: Target) -> None:
    async with session(target) as peer:
        whole = audio_in(noise(0.1))
        for damaged in (b"", b"\x01", whole[:31], whole[:-1], whole + b"x"):
            await peer.send_binary(damaged)
            await peer.error("invalid_frame")
        short = bytearray(whole)
        struct.pack_into("<H", short, 2, 31)
        await peer.send_binary(bytes(short))
        await peer.error("invalid_frame")
        await peer.alive()


async def invalid_audio(target: Target) -> None:
    async with session(target) as peer:
        await peer.send_binary(audio_in(b"abc"))
        await peer.error("invalid_audio")
        for text in ("not base64!", base64.b64encode(b"abc").decode()):
            await peer.send("input_audio_buffer.append", audio=text)
            await peer.error("invalid_audio")
        await peer.alive()


async def empty_commit(target: Target) -> None:
    async with session(target) as peer:
        await peer.send("input_audio_buffer.commit", event_id="none")
        await peer.error("input_buffer_empty")
        await peer.alive()


async def binary_event(target: Target) -> None:
    async with session(target) as peer:
        await peer.send_binary(json.dumps({"type": "session.ping", "t": 1}).encode())
        await peer.error("unsupported_data")
        code = await peer.end()
        require(code == 1003, f"the close code is {code}")


async def too_many_errors(target: Target) -> None:
    async with session(target) as peer:
        for _ in range(30):
            await peer.send_text("{")
        code = await peer.end()
        require(code == 1007, f"the close code is {code}")
        last = peer.of_type("error")[-1]["error"]["code"]
        require(last == "too_many_errors", f"the last error is {last!r}")


async def message_too_large(target: Target) -> None:
    async with connected(target) as peer:
        created = await peer.event("session.created")
        limit = created["limits"]["max_message_bytes"]
        await peer.send_text(json.dumps({"type": "session.ping", "t": "x" * limit}))
        code = await peer.end()
        require(code == 1009, f"the close code is {code}")


CHECKS = (
    Check("events.ping", "Client events", "session.pong brings t back", ping),
    Check("events.state", "Client events", "avatar.set_state is answered", listening),
    Check("events.ids", RULES, "event ids are there and unique", event_ids),
    Check("events.appended", "Server events", "appended comes twice a second at most", appended),
    Check("unknown.event", RULES, "unknown event types are ignored", unknown_event),
    Check("unknown.field", RULES, "unknown fields are ignored", unknown_field),
    Check("unknown.kind", RULES, "unknown binary kinds are ignored", unknown_kind),
    Check("unknown.header", "Binary messages", "longer headers are skipped over", longer_header),
    Check("malformed.json", ERROR_SECTION, "text that is no event is refused", invalid_json),
    Check("malformed.event", ERROR_SECTION, "a wrong field is named", invalid_event),
    Check("malformed.shape", ERROR_SECTION, "errors have all their fields", error_shape),
    Check("malformed.frame", ERROR_SECTION, "damaged frames are refused", invalid_frame),
    Check("malformed.audio", ERROR_SECTION, "half samples are refused", invalid_audio),
    Check("malformed.commit", ERROR_SECTION, "a commit without audio is refused", empty_commit),
    Check("malformed.binary", RULES, "an event as a binary message: told, then 1003", binary_event),
    Check("malformed.many", ERROR_SECTION, "too many errors close with 1007", too_many_errors),
    Check("malformed.large", ERROR_SECTION, "too large closes with 1009", message_too_large),
)
