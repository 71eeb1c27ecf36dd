"""How long the client tries to come back: `ttl_s`, which no restart of the engine uses up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from visavis_client.errors import ServerError
from visavis_client.protocol import SessionResume
from visavis_client.resume import Reconnector
from visavis_client.retry import Retry
from visavis_client.server_errors import (
    EngineRestartingError,
    ResumeElsewhereError,
    ResumeExpiredError,
)

TTL_S = 30.0
REQUEST = SessionResume(handle="h")


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s.append(seconds)


def refused(kind: type[ServerError], retry_after_s: float | None = None) -> ServerError:
    retryable = kind is not ResumeExpiredError
    return kind("code", "not now", retryable=retryable, retry_after_s=retry_after_s)


async def ends_with(answer: Callable[[float], ServerError]) -> tuple[ServerError, Time]:
    """What the client gives up with, and when; `answer` refuses by the seconds since the loss."""
    time = Time()

    async def dial() -> ClientConnection:
        raise answer(time.now_s - 100.0)

    waits = Retry(first_s=1.0, longest_s=2.0, random=lambda: 1.0)
    reconnector = Reconnector(dial, waits=waits, clock=time, sleep=time.sleep)
    with pytest.raises(ServerError) as error:
        await reconnector.resume(REQUEST, TTL_S)
    return error.value, time


async def test_it_gives_up_when_the_time_to_live_is_over() -> None:
    error, time = await ends_with(lambda _: refused(ResumeElsewhereError))
    assert isinstance(error, ResumeElsewhereError)
    assert TTL_S - 2.0 <= time.now_s - 100.0 <= TTL_S


async def test_the_time_of_a_restart_does_not_count() -> None:
    restart_s = 10 * TTL_S

    def answer(since_s: float) -> ServerError:
        return refused(EngineRestartingError if since_s < restart_s else ResumeElsewhereError)

    error, time = await ends_with(answer)
    assert isinstance(error, ResumeElsewhereError)
    assert restart_s + TTL_S - 4.0 <= time.now_s - 100.0 <= restart_s + TTL_S + 2.0


async def test_a_refusal_for_good_during_a_restart_is_the_end() -> None:
    def answer(since_s: float) -> ServerError:
        return refused(EngineRestartingError if since_s < 5.0 else ResumeExpiredError)

    error, time = await ends_with(answer)
    assert isinstance(error, ResumeExpiredError)
    assert time.now_s - 100.0 < 10.0


@pytest.mark.parametrize(("asked_s", "waited_s"), [(None, 2.0), (5.0, 5.0), (600.0, TTL_S / 4)])
async def test_the_servers_word_on_when_to_come_back_is_kept_within_reason(
    asked_s: float | None, waited_s: float
) -> None:
    answers: list[Any] = [refused(EngineRestartingError, asked_s)] * 3
    answers.append(refused(ResumeExpiredError))
    left = iter(answers)
    _, time = await ends_with(lambda _: next(left))
    assert time.slept_s[0] == 1.0
    assert time.slept_s[1:] == [max(2.0, waited_s)] * 3
