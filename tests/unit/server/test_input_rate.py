"""The cap on the rate of incoming audio, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.input_rate import MIN_COST_S, InputMeter


def test_a_first_burst_and_then_the_rate() -> None:
    meter = InputMeter(rate=4.0, burst_s=10.0)
    meter.take(10.0, 0.0)
    with pytest.raises(ProtocolError) as caught:
        meter.take(1.0, 0.0)
    assert caught.value.code is ErrorCode.INPUT_RATE_EXCEEDED
    assert caught.value.retry_after_s == pytest.approx(0.25)
    meter.take(1.0, 0.25)


def test_a_refused_message_costs_nothing() -> None:
    meter = InputMeter(rate=1.0, burst_s=1.0)
    for _ in range(100):
        with pytest.raises(ProtocolError):
            meter.take(2.0, 0.0)
    meter.take(1.0, 0.0)


def test_tiny_messages_cost_something() -> None:
    meter = InputMeter(rate=1.0, burst_s=1.0)
    for _ in range(int(1.0 / MIN_COST_S) - 1):
        meter.take(0.0, 0.0)
    with pytest.raises(ProtocolError):
        meter.take(2 * MIN_COST_S, 0.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=60))
def test_never_more_than_burst_and_rate_together(steps: list[tuple[float, float]]) -> None:
    meter = InputMeter(rate=3.0, burst_s=5.0)
    now_s, accepted_s = 0.0, 0.0
    for wait_s, audio_s in steps:
        now_s += wait_s
        try:
            meter.take(audio_s, now_s)
        except ProtocolError:
            continue
        accepted_s += audio_s
    assert accepted_s <= 5.0 + 3.0 * now_s + 1e-6
