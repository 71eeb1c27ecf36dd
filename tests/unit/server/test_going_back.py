"""The face goes on from what was seen: past idle frames cut short, cancels in a row, long waits."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs
from virtual_engine import VirtualClient, VirtualEngine, run_virtually
from virtual_session import RATE, opened

from visavis.server import events as ev
from visavis.server.conversation import FRAME_US, Conversation, MediaFrame
from visavis.server.order import Order, Turn
from visavis.server.stream import EngineStream

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def virtually(monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda main: run_virtually(monkeypatch, main)


def engine_frames(client: VirtualClient) -> list[int]:
    """The engine's numbers of the frames that count, as they were given."""
    return [index for _, index in client.stream._places]


def check_contiguous(client: VirtualClient) -> None:
    frames = engine_frames(client)
    assert frames == list(range(frames[0], frames[0] + len(frames)))


def test_an_answer_goes_on_from_the_last_idle_frame_that_was_shown(virtually: Run) -> None:
    async def main() -> None:
        # So slow that every idle frame is needed until the answer begins.
        async with VirtualEngine() as engine, engine.client() as client:
            engine.pipeline.slowness = 2.0
            for moment in range(12):
                await asyncio.sleep(1 + 0.07 * moment)
                await client.speak(0.6, live=True)
                check_contiguous(client)

    virtually(main)


def test_two_who_are_interrupted_at_any_moment_have_a_way_back(virtually: Run) -> None:
    async def talk(client: VirtualClient, chance: random.Random) -> None:
        for _ in range(25):
            await asyncio.sleep(1.5 * chance.random())
            speaking = asyncio.create_task(
                client.speak(1 + 2 * chance.random(), live=chance.random() < 0.5)
            )
            await asyncio.sleep(2 * chance.random())
            for _ in range(chance.choice((0, 1, 2))):
                client.cancel()
                await asyncio.sleep(0.1 * chance.random())
            await speaking
            check_contiguous(client)

    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as one, engine.client(seed=1) as two:
            engine.pipeline.slowness = 1.6
            await asyncio.gather(talk(one, random.Random(1)), talk(two, random.Random(2)))

    with capture_logs() as logs:
        virtually(main)
    assert [entry for entry in logs if "no way back" in entry["event"]] == []


def test_who_is_further_behind_than_is_remembered_gets_the_nearest_frame(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(8)
            given = engine_frames(client)[-1]
            client.conversation.cancel(shown_pts_us=2 * FRAME_US)
            client.pacer.restart(client.conversation.next_pts_us, asyncio.get_running_loop().time())
            client.producer.wake()
            await asyncio.sleep(0.1)
            frames = engine_frames(client)
            # The third frame that counts is now that one.
            nearest = frames[2]
            assert given - 96 <= nearest <= given - 60
            assert frames == [0, 1, *range(nearest, nearest + len(frames) - 2)]
            assert len(frames) > 3

    with capture_logs() as logs:
        virtually(main)
    (warning,) = [entry for entry in logs if "no way back" in entry["event"]]
    assert "frame 2 is not remembered" in warning["reason"]


def sent(talk: Conversation, ordinals: range) -> None:
    for ordinal in ordinals:
        frame = MediaFrame(
            generation=talk.generation,
            response=0,
            audio=b"",
            video=b"",
            keyframe=False,
            ordinal=ordinal,
        )
        assert talk.offer(frame)
        talk.stamp(0.0, playback_end_s=0.0)


def shown_in(event: ev.ServerEvent) -> int | None:
    assert isinstance(event, ev.OutputCleared)
    return event.shown_pts_us


@pytest.mark.parametrize("shown_us", [None, 0, 9 * FRAME_US])
def test_what_a_cancel_made_void_was_never_seen(shown_us: int | None) -> None:
    talk = Conversation(rate=RATE, max_buffered_input_ms=1_000)
    sent(talk, range(6))
    (cleared,) = talk.cancel(shown_pts_us=2 * FRAME_US + 1)
    assert shown_in(cleared) == 2 * FRAME_US + 1
    assert talk.take_input().shown_ordinal == 2
    (cleared,) = talk.cancel(shown_pts_us=shown_us)
    seen = 0 if shown_us == 0 else 2
    assert talk.take_input().shown_ordinal == seen
    sent(talk, range(9, 11))
    talk.cancel(shown_pts_us=5 * FRAME_US)
    assert talk.take_input().shown_ordinal == seen
    talk.cancel()
    assert talk.take_input().shown_ordinal == seen


def test_nothing_was_seen_before_anything_was_sent() -> None:
    talk = Conversation(rate=RATE, max_buffered_input_ms=1_000)
    (cleared,) = talk.cancel(shown_pts_us=None)
    assert shown_in(cleared) is None
    assert talk.take_input().shown_ordinal == -1


@pytest.mark.parametrize("fade_ms", [0, 200])
def test_a_second_cancel_at_once_tells_the_same_frame(fade_ms: int) -> None:
    with opened(max_sessions=1) as server:
        link = server.connect()
        session = {
            "avatar_id": "anyone",
            "input_audio": {"format": "pcm16", "rate": RATE},
            "output": {"video": "none"},
        }
        link.socket.say("session.update", session=session)
        server.run(3.0)
        for _ in range(3):
            link.socket.say("response.cancel", fade_ms=fade_ms)
        server.run(0.05)
        events = [json.loads(text) for text in link.socket.sent if isinstance(text, str)]
        shown = [e["shown_pts_us"] for e in events if e["type"] == "output.cleared"]
        assert len(shown) == 3
        assert len({place // FRAME_US for place in shown}) == 1
        assert 70 <= shown[0] // FRAME_US <= 80


def test_a_chunk_that_failed_goes_on_from_the_nearest_frame_that_is_remembered(
    virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Order] = []
    start = EngineStream.start

    def noting(stream: EngineStream, order: Order, *rest: Any) -> Turn:
        orders.append(order)
        return start(stream, order, *rest)

    monkeypatch.setattr(EngineStream, "start", noting)

    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await client.speak(1.0, live=False)
            client.producing.cancel()
            stream = client.stream
            last = engine_frames(client)[-1]
            stream._places[-1] = (stream._places[-1][0], last + 1000)
            with capture_logs() as logs:
                stream.recover(orders[-1])
            assert [entry["instead"] for entry in logs] == [last]
            assert next(stream._session.generate_idle()).index == last + 1

    virtually(main)
