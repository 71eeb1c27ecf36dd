"""A client that does not read is closed, and learns of it what every client does."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from visavis.server import events as ev
from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.event_queue import MAX_EVENTS
from visavis.server.metrics import Metrics
from visavis.server.outbound import Outbound


class Socket:
    """Takes nothing while `blocked`."""

    def __init__(self) -> None:
        self.readable = asyncio.Event()
        self.texts: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    async def send_text(self, text: str) -> None:
        await self.readable.wait()
        self.texts.append(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        await self.readable.wait()
        self.closed = (code, reason)


def outbound(socket: Socket, *, slow_client_s: float = 10.0) -> Outbound:
    """One with a session in which `resp_2` is open."""
    on_slow: Any = None
    out = Outbound(
        socket,  # type: ignore[arg-type]
        ServerConfig(slow_client_s=slow_client_s),
        Metrics(),
        SimpleNamespace(),  # type: ignore[arg-type]
        on_slow=lambda error: on_slow(error),
    )

    def end(error: ProtocolError) -> None:
        out.post(done("resp_2"))
        out.close_with(error)

    on_slow = end
    return out


def done(response_id: str) -> ev.ResponseDone:
    return ev.ResponseDone(
        response_id=response_id,
        response_index=1,
        status="cancelled",
        generated_ms=0,
        sent_ms=0,
        played_ms=None,
        reason="slow_client",
    )


def pong() -> ev.SessionPong:
    return ev.SessionPong(t=0, server_time_us=0)


def check_farewell(socket: Socket) -> None:
    """Each response is done once, then comes the reason, then the close."""
    ends = [e["response_id"] for e in socket.texts if e["type"] == "response.done"]
    assert ends == ["resp_1", "resp_2"]
    assert socket.texts[-1]["type"] == "error"
    assert socket.texts[-1]["error"]["code"] == "slow_client"
    assert socket.closed == (4408, "slow_client")


async def test_too_many_events_end_with_their_reason_and_no_done_is_lost() -> None:
    socket = Socket()
    out = outbound(socket)
    running = asyncio.create_task(out.run(lambda now_s: None))
    out.post(ev.ResponseCreated(response_id="resp_1", response_index=1), done("resp_1"))
    for _ in range(2 * MAX_EVENTS):
        out.post(pong())
    assert out.closing
    socket.readable.set()
    await running
    check_farewell(socket)
    assert [e["type"] for e in socket.texts].count("response.created") == 1
    # What nobody reads is not kept for long.
    assert len(socket.texts) < 10


async def test_nothing_is_said_after_the_reason_to_close() -> None:
    socket = Socket()
    out = outbound(socket)
    running = asyncio.create_task(out.run(lambda now_s: None))
    out.post(done("resp_1"), done("resp_2"))
    out.close_with(ProtocolError(ErrorCode.SLOW_CLIENT, "it is over"))
    out.post(pong())
    out.error(ProtocolError(ErrorCode.INTERNAL_ERROR, "too late"))
    out.close_with(ProtocolError(ErrorCode.IDLE_TIMEOUT, "too late"))
    await asyncio.sleep(0)
    out.post(pong())
    socket.readable.set()
    await running
    check_farewell(socket)
    assert [e["type"] for e in socket.texts].count("error") == 1


async def test_a_client_that_reads_again_at_the_last_moment_learns_why_it_is_closed() -> None:
    socket = Socket()
    out = outbound(socket, slow_client_s=0.05)
    out.post(done("resp_1"))
    running = asyncio.create_task(out.run(lambda now_s: None))
    async with asyncio.timeout(5):
        while not out.closing:  # noqa: ASYNC110 the limit's own time
            await asyncio.sleep(0.005)
    socket.readable.set()
    await running
    check_farewell(socket)


async def test_a_client_that_never_reads_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis.server.wire.FAREWELL_S", 0.05)
    socket = Socket()
    out = outbound(socket, slow_client_s=0.05)
    out.post(done("resp_1"))
    async with asyncio.timeout(5):
        await out.run(lambda now_s: None)
    assert (out.end_reason, socket.texts) == ("slow_client", [])
