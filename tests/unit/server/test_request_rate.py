"""The rate of requests, on a clock of the test's own."""

from __future__ import annotations

import pytest

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import ANONYMOUS, Principal
from visavis.server.request_rate import MAX_CALLERS, RequestRates


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def key(name: str = "app", token: str | None = None) -> Principal:
    return Principal(name=name, kind="key", requests_per_minute=60, token_id=token)


def refused(rates: RequestRates, caller: Principal) -> float:
    with pytest.raises(ProtocolError) as error:
        rates.take(caller)
    assert error.value.code is ErrorCode.RATE_LIMITED
    assert error.value.retry_after_s is not None
    return error.value.retry_after_s


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    rates = RequestRates(clock)
    for _ in range(10):
        rates.take(key())
    wait_s = refused(rates, key())
    assert wait_s == pytest.approx(1.0)
    # What was refused is not counted.
    assert refused(rates, key()) == pytest.approx(wait_s)
    clock.now_s += wait_s
    rates.take(key())
    refused(rates, key())


def test_keys_and_tokens_do_not_slow_each_other() -> None:
    rates = RequestRates(Clock())
    for _ in range(10):
        rates.take(key())
    refused(rates, key())
    rates.take(key("other"))
    rates.take(key(token="t1"))


def test_who_has_no_limit_is_not_counted() -> None:
    rates = RequestRates(Clock())
    for _ in range(1_000):
        rates.take(ANONYMOUS)


def test_callers_are_remembered_up_to_a_number() -> None:
    rates = RequestRates(Clock())
    for number in range(MAX_CALLERS + 100):
        rates.take(key(token=f"t{number}"))
    assert len(rates._levels) == MAX_CALLERS
