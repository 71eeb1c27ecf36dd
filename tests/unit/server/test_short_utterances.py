"""An utterance shorter than a frame, on the virtual clock of virtual_engine.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from virtual_engine import RATE, VirtualClient, VirtualEngine, run_virtually

from visavis.server.turn_planner import MAX_READY_FRAMES

FRAME = RATE // 25


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not come about within {seconds:g} s")


def say(client: VirtualClient, samples: int) -> None:
    client.conversation.append(bytes(2 * samples), None, asyncio.get_running_loop().time())
    client.conversation.commit(None)
    client.producer.wake()


def test_a_word_shorter_than_a_frame_is_said_though_much_was_ready_when_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client(idle="freeze") as client:
            talk = client.conversation
            say(client, 120 * FRAME)
            await until(lambda: len(talk.ready) >= MAX_READY_FRAMES)
            say(client, FRAME // 4)
            await until(lambda: not talk.has_open_responses)
            assert sum(frame.response == 2 for frame in client.sent) == 1

    run_virtually(monkeypatch, main)
