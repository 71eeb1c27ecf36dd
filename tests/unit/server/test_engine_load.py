"""Capacity from measured costs, and quality that follows the load slowly."""

from dataclasses import replace

import pytest

from visavis.engine.costs import ChunkCosts
from visavis.server.engine_load import ALONE_TARGET, LOAD_TARGET, EngineLoad, expected_slowness
from visavis.server.picture_costs import PictureCosts
from visavis.server.quality import DEGRADE_AFTER_S, RESTORE_AFTER_S, DegradePolicy

COSTS = ChunkCosts(
    steps_s={9: {1: 0.011}, 13: {1: 0.0125}, 17: {1: 0.014}, 33: {1: 0.021}},
    prepare_s=0.002,
    first_frame_s=0.008,
    frame_s=0.0065,
)


def load(costs: ChunkCosts | None = COSTS, **settings: object) -> EngineLoad:
    return EngineLoad(lambda: costs, num_steps=4, **settings)  # type: ignore[arg-type]


def slow_down(account: EngineLoad, factor: float) -> None:
    for _ in range(60):
        busy_s = factor * COSTS.chunk_s(33, account.num_steps)
        account.observe(33, busy_s=busy_s, wait_s=COSTS.start_s(33, account.num_steps))


def test_nothing_is_promised_beyond_what_was_measured() -> None:
    account = load()
    worst = COSTS.realtime_factor(4, chunk_frames=17)
    assert account.capacity == int(LOAD_TARGET / worst)
    assert load(None).capacity == 1


def test_a_machine_that_became_slower_takes_fewer() -> None:
    account = load()
    before = account.capacity
    slow_down(account, 2.0)
    assert account.capacity == before // 2
    slow_down(account, 50.0)
    assert account.capacity == 1


def test_chunks_of_live_speech_are_longer_when_many_converse() -> None:
    account = load()
    frames = []
    for account.conversing in range(5):
        frames.append(account.fewest_frames)
    assert frames == [4, 4, 8, 12, 12]


def test_one_who_speaks_alone_on_a_slow_machine_waits_for_longer_chunks() -> None:
    account = load()
    account.conversing = 1
    slow_down(account, 0.95 * ALONE_TARGET / COSTS.realtime_factor(4, chunk_frames=9))
    assert account.fewest_frames == 4
    slow_down(account, 1.05 * ALONE_TARGET / COSTS.realtime_factor(4, chunk_frames=9))
    assert account.fewest_frames == 8


def test_what_is_batched_now_and_then_is_not_promised() -> None:
    batched = replace(COSTS, steps_s={c: {**s, 2: s[1], 4: s[1]} for c, s in COSTS.steps_s.items()})
    assert batched.cap(17) == 4
    assert load(batched).capacity == load().capacity


def test_on_processors_in_common_less_is_promised_until_speech_was_seen() -> None:
    costs = replace(COSTS, prepare_s=0.042)  # 0.37 of real time
    account = EngineLoad(lambda: costs, num_steps=4, slowness=expected_slowness("cpu"))
    assert (account.capacity, load(costs).capacity) == (1, 2)
    assert expected_slowness("cuda") == 1.0
    chunk_s, start_s = costs.chunk_s(17, 4), costs.start_s(17, 4)
    for _ in range(60):
        account.observe(17, busy_s=chunk_s, wait_s=None)
    assert account.capacity == 1  # idling was not slow, which says nothing of speech
    for _ in range(60):
        account.observe(17, busy_s=chunk_s, wait_s=start_s)
    assert account.capacity == 2


def test_idling_that_is_slow_is_a_warning() -> None:
    account = load()
    before = account.capacity
    for _ in range(60):
        account.observe(33, busy_s=3 * COSTS.chunk_s(33, 4), wait_s=None)
    assert account.capacity < before


def test_starts_under_load_are_expected_to_take_as_long_as_they_did() -> None:
    account = load()
    idle = account.start_s()[17]
    for _ in range(40):
        account.observe(17, busy_s=0.0, wait_s=3 * COSTS.start_s(17, 4))
    assert account.start_s()[17] == pytest.approx(3 * idle, rel=0.01)


def test_quality_falls_after_a_while_and_returns_after_a_longer_one() -> None:
    account = load()
    account.speaking = 5
    assert account.load() > 1
    assert not account.update(0.0)
    assert account.update(DEGRADE_AFTER_S)
    assert (account.degraded, account.num_steps) == (("steps",), 2)
    account.speaking = 1
    assert not account.update(10.0)
    assert not account.update(10.0 + RESTORE_AFTER_S - 0.1)
    assert account.update(10.0 + RESTORE_AFTER_S)
    assert (account.degraded, account.num_steps) == ((), 4)


def test_a_moment_of_load_changes_nothing() -> None:
    account = load()
    account.speaking = 5
    account.update(0.0)
    account.speaking = 1
    account.update(0.5)
    account.speaking = 5
    assert not account.update(DEGRADE_AFTER_S)


def test_what_may_not_be_lowered_is_not() -> None:
    account = load(policy=DegradePolicy(order=()))
    account.speaking = 9
    assert not account.update(0.0)
    assert not account.update(99.0)


SMALL, LARGE = (256, 256), (512, 512)
# 10 ms a picture are a quarter of real time.
PICTURES = PictureCosts({"h264": {SMALL: 0.01, LARGE: 0.02}, "jpeg": {SMALL: 0.002}}, SMALL)
CHEAP = PictureCosts({"h264": {SMALL: 0.0005, LARGE: 0.012}}, SMALL)


def test_the_first_session_is_admitted_with_its_pictures_in_mind() -> None:
    worst = COSTS.realtime_factor(4, chunk_frames=17)
    assert load(pictures=PICTURES).capacity == int(LOAD_TARGET / (worst + 0.25)) < load().capacity


def test_pictures_cost_by_format_size_and_rate() -> None:
    account = load(pictures=PICTURES)
    assert account.picture_s("h264", SMALL, 25) == account.picture_s("fmp4", SMALL, 25) == 0.01
    assert account.picture_s("h264", (384, 384), 25) == 0.02
    assert account.picture_s("h264", LARGE, 12.5) == 0.01
    assert account.picture_s("h264", (1024, 512), 25) == pytest.approx(0.04)
    assert account.picture_s("jpeg", SMALL, 25) == 0.002
    assert account.picture_s("none", LARGE, 25) == 0.0


def test_sessions_that_are_here_count_with_what_they_asked_for() -> None:
    account = load(pictures=CHEAP)
    before = account.capacity
    account.enter("large", account.picture_s("h264", LARGE, 25))
    assert account.capacity < before
    account.leave("large")
    account.enter("sound only", 0.0)
    assert account.places(0.0) == load().capacity
    account.leave("sound only")
    assert account.capacity == before


def test_pictures_that_take_longer_than_measured_lower_capacity() -> None:
    account = load(pictures=CHEAP)
    before, chunk_s = account.capacity, COSTS.chunk_s(33, 4)
    for _ in range(60):
        account.observe(33, busy_s=chunk_s + 0.42, wait_s=None, encode_s=0.42, picture_s=5e-4)
    assert account.capacity < before


def test_pictures_count_and_fewer_of_them_less() -> None:
    account = load(policy=DegradePolicy(order=("fps",)), pictures=PICTURES)
    account.speaking = 4
    full = account.load()
    without = load()
    without.speaking = 4
    assert full == pytest.approx(without.load() + 4 * 0.25, rel=0.02)
    account.update(0.0)
    assert account.update(DEGRADE_AFTER_S)
    assert account.load() == pytest.approx(without.load() + 4 * 0.125, rel=0.02)
    chunk_s = COSTS.chunk_s(33, 4)
    for _ in range(60):
        account.observe(33, busy_s=chunk_s + 0.14, wait_s=None, encode_s=0.14, picture_s=0.01)
    # Half as many pictures take half the time, which says nothing about all of them.
    assert account.load() == pytest.approx(without.load() + 4 * 0.125, rel=0.02)
