"""A session's memory is free as soon as it ends; nothing of it waits for the garbage collector,
which looks at long-lived objects only after dozens of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from live_server import Client, LiveServer, client_of, make_config, noise, running
from websockets.exceptions import ConnectionClosed

from visavis.engine.idle import IdleLoop
from visavis.engine.session import AvatarSession
from visavis.engine.timeline import Timeline
from visavis.server.encoder import H264Encoder
from visavis.server.sent_ring import SentMedia
from visavis.server.stream import EngineStream

# What is large, or holds what is large.
HEAVY = (AvatarSession, EngineStream, H264Encoder, IdleLoop, SentMedia, Timeline)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(make_config(tmp_path_factory.mktemp("memory"), resume_ttl_s=0.5)) as server:
        yield server


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage but what earlier tests made, and that is gone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def heavy() -> Counter[str]:
    return Counter(type(item).__name__ for item in gc.get_objects() if type(item) in HEAVY)


async def begin(client: Client) -> None:
    """A session that speaks."""
    await client.configure(output={"video": "h264"})
    await client.send_audio(noise(48_000))
    await client.until_media(speech=True, timeout_s=120)


async def leave(client: Client) -> None:
    await client.send("session.close")
    while True:
        await client.read()


async def finish(client: Client) -> None:
    await client.send("input_audio_buffer.commit")
    await client.until("response.done", timeout_s=120)
    await leave(client)


async def interrupt(client: Client) -> None:
    await client.send("response.cancel")
    await client.until("output.cleared")
    await leave(client)


async def err(client: Client) -> None:
    """A message that is too large ends the session."""
    await client.socket.send(bytes(3 * 2**19))
    while True:
        await client.read()


async def lose(client: Client) -> None:
    """Held, and then given up."""
    client.socket.transport.abort()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("end", [leave, finish, interrupt, err, lose])
async def test_what_a_session_held_is_freed_when_it_ends(
    server: LiveServer, end: Callable[[Client], Awaitable[None]]
) -> None:
    before = heavy()
    async with client_of(server) as client:
        await begin(client)
        assert heavy() - before
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(60):
                await end(client)
    for _ in range(200):
        # The connection's own task ends a moment after its session.
        if not heavy() - before:
            break
        await asyncio.sleep(0.05)
    assert not heavy() - before
