"""Resuming, against a server that follows a script: connections break where a test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets import State
from websockets.asyncio.server import ServerConnection, serve

from visavis.server.resume import HELD_CLOSE_CODES
from visavis_client import AvatarSession, SessionClosedError, connect, wire
from visavis_client.events import SessionResumed
from visavis_client.protocol import Flag, Kind
from visavis_client.resume import RESUMABLE
from visavis_client.server_errors import CapacityError, ResumeExpiredError

Script = Callable[["Connection"], Awaitable[None]]
EFFECTIVE = {
    "avatar_id": "a",
    "input_audio": {"format": "pcm16", "rate": 16_000},
    "output": {
        "video": "jpeg",
        "codec": "jpeg",
        "audio": "pcm16",
        "audio_rate": 16_000,
        "fps": 25,
        "width": 8,
        "height": 8,
        "quality": 85,
    },
    "idle": "generate",
    "on_disconnect": "hold",
    "seed": 0,
    "warnings": [],
}
LIMITS = {
    "max_message_bytes": 1 << 20,
    "max_buffered_input_ms": 30_000,
    "max_session_s": 60,
    "idle_timeout_s": 60,
    "max_inflight_ms": 1_500,
}


class Connection:
    """One socket of the scripted server."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.audio: list[int] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "event_id": "s", **fields}))

    async def frame(self, seq: int, *, flags: int = 0, epoch: int = 0) -> None:
        message = wire.Message(
            kind=Kind.MEDIA,
            flags=flags,
            seq=seq,
            pts_us=40_000 * seq,
            epoch=epoch,
            response=1,
            audio=bytes(1_280),
        )
        await self.socket.send(message.encode())

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of that type; the numbers of audio before it are in `audio`."""
        async for message in self.socket:
            if isinstance(message, bytes):
                self.audio.append(wire.Message.decode(message).seq)
                continue
            event: dict[str, Any] = json.loads(message)
            if event["type"] == kind:
                return event
        raise AssertionError(f"the client left before {kind}")

    async def greet(self, *, ttl_s: float = 5.0, hold: str = "hold") -> None:
        await self.send(
            "session.created",
            session_id="sess_1",
            server_version="0",
            engine="e",
            model="m",
            limits=LIMITS,
            timing={"fps": 25, "chunk_frames": 28, "chunk_ms": 1120},
            resume={"handle": "first", "ttl_s": ttl_s},
        )
        asked = await self.until("session.update")
        assert asked["session"]["on_disconnect"] == hold
        effective = EFFECTIVE | {"on_disconnect": hold}
        await self.reply("session.updated", asked, session=effective)

    async def reply(self, kind: str, event: dict[str, Any], **fields: Any) -> None:
        await self.send(kind, source_event_id=event["event_id"], **fields)

    async def resumed(self, *, from_seq: int, lost: int = 0, epoch: int = 0, **more: Any) -> None:
        await self.send(
            "session.resumed",
            session_id="sess_1",
            from_seq=from_seq,
            lost_frames=lost,
            epoch=epoch,
            from_pts_us=40_000 * from_seq,
            session=EFFECTIVE,
            resume={"handle": "second", "ttl_s": 5.0},
            **more,
        )

    def drop(self) -> None:
        """As if the cable were cut."""
        self.socket.transport.abort()


async def done(connection: Connection) -> None:
    await connection.send(
        "response.done",
        response_id="r",
        response_index=1,
        status="completed",
        generated_ms=0,
        sent_ms=0,
        played_ms=None,
    )


@asynccontextmanager
async def session_with(*scripts: Script, **options: Any) -> AsyncIterator[AvatarSession]:
    """A session whose n-th connection is served by the n-th script; their failures are raised."""
    left = iter(scripts)
    failures: list[BaseException] = []

    async def handle(socket: ServerConnection) -> None:
        try:
            connection = Connection(socket)
            await next(left)(connection)
            if connection.socket.state is State.OPEN:
                await connection.until("session.close")
        except BaseException as error:
            failures.append(error)
            raise

    async with serve(handle, "127.0.0.1", 0, subprotocols=["avatar.v1"]) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", avatar="a", timeout_s=5, **options) as session:
            yield session
    assert [f for f in failures if isinstance(f, AssertionError)] == []


async def test_a_lost_connection_is_opened_again_and_nobody_notices() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        await c.until("input_audio_buffer.commit")
        await c.frame(7, flags=Flag.FIRST | Flag.KEYFRAME)
        c.drop()

    async def second(c: Connection) -> None:
        asked = await c.until("session.resume")
        assert (asked["handle"], asked["last_seq"]) == ("first", 7)
        await c.resumed(from_seq=9, lost=1, received_seq=1)
        committed = await c.until("input_audio_buffer.commit")
        assert c.audio == [2, 3]
        await c.reply("input_audio_buffer.committed", committed, response_id="r", duration_ms=1000)
        await c.frame(9, flags=Flag.DISCONTINUITY | Flag.KEYFRAME)
        await c.frame(10, flags=Flag.LAST)
        await done(c)

    async with session_with(first, second) as session:
        frames = [frame async for frame in session.speak(bytes(32_000))]
        assert [frame.seq for frame in frames] == [7, 9, 10]
        assert [frame.gap for frame in frames] == [False, True, False]
        assert session.resumes == 1
        events = []
        async for event in session.events():
            events.append(event)
            if event.type == "response.done":
                break
        assert sum(isinstance(event, SessionResumed) for event in events) == 1


async def test_a_commit_whose_answer_was_lost_is_no_error() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        await c.until("input_audio_buffer.commit")
        c.drop()

    async def second(c: Connection) -> None:
        await c.until("session.resume")
        await c.resumed(from_seq=0, received_seq=0)
        again = await c.until("input_audio_buffer.commit")
        body = {"type": "t", "code": "input_buffer_empty", "message": "m"}
        await c.send("error", error=body | {"event_id": again["event_id"]})

    async with session_with(first, second) as session:
        await session.send_audio(bytes(3_200))
        committed = await session.commit()
        assert committed.duration_ms == 100


async def test_events_that_were_missed_are_asked_for() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        committed = await c.until("input_audio_buffer.commit")
        await c.reply("input_audio_buffer.committed", committed, response_id="r", duration_ms=40)
        await c.frame(0, flags=Flag.FIRST | Flag.LAST)
        await c.send("session.stats", rtf=None, gen_fps=0, queue_ms=0, encode_ms=0, dropped=0)
        await asyncio.sleep(0.05)
        c.drop()

    async def second(c: Connection) -> None:
        asked = await c.until("session.resume")
        assert (asked["last_seq"], asked["last_event_id"]) == (0, "s")
        await c.resumed(from_seq=1)
        await done(c)

    async with session_with(first, second) as session:
        frames = [frame async for frame in session.speak(bytes(1_280))]
        assert len(frames) == 1
        assert session.resumes == 1


async def test_a_full_server_lets_wait_and_says_the_place() -> None:
    async def only(c: Connection) -> None:
        await c.send("session.queued", position=2, eta_s=0.1)
        await c.send("session.queued", position=1, eta_s=None)
        await c.greet()

    places: list[int] = []
    async with session_with(only, on_queue=lambda event: places.append(event.position)):
        assert places == [2, 1]


async def test_who_does_not_want_to_wait_is_told_at_once() -> None:
    async def only(c: Connection) -> None:
        await c.send("session.queued", position=2)

    with pytest.raises(CapacityError, match="within 0 s"):
        async with session_with(only, queue_timeout_s=0):
            pass


async def test_a_cancel_during_the_gap_voids_what_was_read_before() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        await c.frame(0, flags=Flag.FIRST)
        c.drop()

    async def second(c: Connection) -> None:
        await c.until("session.resume")
        await c.resumed(from_seq=5, epoch=1)
        await c.frame(5, epoch=0)
        await c.frame(6, epoch=1)

    async with session_with(first, second) as session:
        async for event in session.events():
            if isinstance(event, SessionResumed):
                break
        async for frame in session.frames():
            assert frame.epoch == 1
            break


async def test_it_tries_again_while_the_server_restarts() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        await c.socket.close(1012, "server_draining")

    async def busy(c: Connection) -> None:
        await c.until("session.resume")
        body = {"type": "t", "code": "server_draining", "message": "m", "retryable": True}
        await c.send("error", error=body)
        await c.socket.close(1012)

    async def last(c: Connection) -> None:
        asked = await c.until("session.resume")
        assert asked["last_seq"] is None if "last_seq" in asked else True
        await c.resumed(from_seq=0)
        ping = await c.until("session.ping")
        await c.reply("session.pong", ping, t=0, server_time_us=0)

    async with session_with(first, busy, last) as session:
        assert await session.ping() < 5
        assert session.resumes == 1


async def test_a_close_without_a_code_is_a_lost_connection() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        async with c.socket.send_context():
            c.socket.protocol.send_close()

    async def second(c: Connection) -> None:
        await c.until("session.resume")
        await c.resumed(from_seq=0)
        ping = await c.until("session.ping")
        await c.reply("session.pong", ping, t=0, server_time_us=0)

    async with session_with(first, second) as session:
        await session.ping()
        assert session.resumes == 1


def test_the_client_comes_back_after_all_codes_that_the_server_holds_a_session_for() -> None:
    assert frozenset(HELD_CLOSE_CODES) == RESUMABLE


async def test_a_session_that_is_gone_ends_with_the_servers_reason() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        c.drop()

    async def second(c: Connection) -> None:
        await c.until("session.resume")
        await c.send("error", error={"type": "t", "code": "resume_expired", "message": "gone"})
        await c.socket.close(4404, "resume_expired")

    async with session_with(first, second) as session:
        with pytest.raises(SessionClosedError) as closed:
            async for _ in session.frames():
                pass
        assert isinstance(closed.value.error, ResumeExpiredError)


async def test_a_change_of_settings_keeps_the_newest_handle() -> None:
    async def first(c: Connection) -> None:
        await c.greet()
        c.drop()

    async def second(c: Connection) -> None:
        await c.until("session.resume")
        await c.resumed(from_seq=0)
        asked = await c.until("session.update")
        await c.reply("session.updated", asked, session=EFFECTIVE)
        c.drop()

    async def third(c: Connection) -> None:
        asked = await c.until("session.resume")
        assert asked["handle"] == "second"
        await c.resumed(from_seq=0)
        ping = await c.until("session.ping")
        await c.reply("session.pong", ping, t=0, server_time_us=0)

    async with session_with(first, second, third) as session:
        await session.update(idle="freeze")
        await session.ping()
        assert session.resumes == 2


@pytest.mark.parametrize("reason", ["server_draining", "engine_restarting"])
async def test_a_server_that_keeps_nothing_is_not_asked_again(reason: str) -> None:
    async def only(c: Connection) -> None:
        await c.greet()
        await c.send("session.expiring", reason=reason, deadline_s=5)
        asked = await c.until("session.update")
        await c.reply("session.updated", asked, session=EFFECTIVE)
        await c.socket.close(1012, reason)

    async def again(c: Connection) -> None:
        raise AssertionError("the client came back")

    async with session_with(only, again) as session:
        await session.update(idle="freeze")
        with pytest.raises(SessionClosedError) as closed:
            async for _ in session.frames():
                pass
        assert (closed.value.close_code, session.resumes) == (1012, 0)


async def test_without_resume_a_lost_connection_is_the_end() -> None:
    async def only(c: Connection) -> None:
        await c.greet(hold="end")
        c.drop()

    async with session_with(only, resume=False) as session:
        with pytest.raises(SessionClosedError) as closed:
            async for _ in session.frames():
                pass
        assert closed.value.code == "connection_lost"


@pytest.mark.parametrize("code", [4409, 4410, 4403, 1011])
async def test_ends_that_the_server_means_are_final(code: int) -> None:
    async def only(c: Connection) -> None:
        await c.greet()
        await c.socket.close(code)

    async with session_with(only) as session:
        with pytest.raises(SessionClosedError) as closed:
            async for _ in session.frames():
                pass
        assert closed.value.close_code == code
        assert session.resumes == 0
