"""When the Python client tries again, what it keeps for that, and what it reports."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis_client import Retry, wire
from visavis_client.errors import AvatarError, ConnectionFailedError, ServerError, TimedOutError
from visavis_client.options import settings_of
from visavis_client.outbox import Outbox
from visavis_client.playback import PlaybackReporter
from visavis_client.protocol import PlaybackUpdate
from visavis_client.retry import NEVER
from visavis_client.server_errors import server_error

LOST = ConnectionFailedError("lost", remedy="")


def full(retry_after_s: float | None) -> ServerError:
    return server_error(
        {
            "code": "capacity",
            "message": "full",
            "retryable": True,
            "retry_after_s": retry_after_s,
        }
    )


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(1, 20))
def test_waits_double_up_to_the_longest_with_jitter(
    drawn: float, first_s: float, longest_s: float
) -> None:
    policy = Retry(first_s=first_s, longest_s=longest_s, random=lambda: drawn)
    waits = list(itertools.islice(policy.waits_s(), 12))
    for number, wait_s in enumerate(waits):
        whole_s = min(first_s * 2**number, longest_s)
        assert whole_s / 2 <= wait_s <= whole_s
    assert waits[-1] >= longest_s / 2


def test_as_many_attempts_as_were_asked_for() -> None:
    plan = Retry(attempts=3, random=lambda: 1.0).plan()
    assert [plan.wait_s(LOST) for _ in range(3)] == [0.25, 0.5, None]
    assert NEVER.plan().wait_s(LOST) is None


def test_the_servers_own_wait_is_kept_unless_it_is_too_long() -> None:
    assert Retry().plan().wait_s(full(5.0)) == 5.0
    assert Retry().plan().wait_s(full(60.0)) is None
    assert Retry(random=lambda: 1.0).plan().wait_s(full(0.0)) == 0.25


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (LOST, True),
        (TimedOutError("late", remedy=""), True),
        (full(None), True),
        (server_error({"code": "invalid_image", "message": "no face"}), False),
        (AvatarError("a bug", remedy=""), False),
    ],
)
def test_only_what_may_work_later_is_tried_again(error: AvatarError, again: bool) -> None:
    assert (Retry().plan().wait_s(error) is not None) == again


@pytest.mark.parametrize("bad", [{"attempts": 0}, {"first_s": 0.0}, {"first_s": 9.0}])
def test_policies_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1 attempt"):
        Retry(**bad)  # type: ignore[arg-type]


def filled(*samples: int) -> Outbox:
    outbox = Outbox()
    for count in samples:
        outbox.add(bytes(2 * count)).sent = True
    return outbox


def numbers(outbox: Outbox, received: int | None) -> list[int]:
    return [message.seq for message in outbox.missing(received)]


def test_what_came_after_the_last_received_is_sent_again() -> None:
    outbox = filled(100, 100, 100)
    assert numbers(outbox, 0) == [1, 2]
    assert numbers(outbox, 2) == []
    assert [wire.Message.decode(m.data).seq for m in outbox.missing(1)] == [2]


def test_without_the_servers_word_only_what_was_never_sent_is_sent() -> None:
    outbox = filled(100, 100)
    outbox.add(bytes(4))
    assert numbers(outbox, None) == [2]


def test_audio_that_came_back_is_forgotten() -> None:
    outbox = filled(100, 100, 100)
    outbox.keep_at_most(150)
    assert len(outbox) == 2
    assert numbers(outbox, 0) == [1, 2]
    outbox.keep_at_most(0)
    assert len(outbox) == 0


async def test_playback_is_reported_when_it_moves_and_now_and_then() -> None:
    now_s, position = 0.0, None
    told: list[int] = []

    async def tell(update: PlaybackUpdate) -> None:
        told.append(update.pts_us)

    def update() -> PlaybackUpdate | None:
        return None if position is None else PlaybackUpdate(pts_us=position)

    reporter = PlaybackReporter(update, tell, clock=lambda: now_s)
    await reporter.report()
    for now_s, position in ((0.4, 0), (0.8, 40_000), (1.2, 40_000), (1.9, 40_000)):  # noqa: B007
        await reporter.report()
    assert told == [0, 40_000, 40_000]


def test_settings_ask_the_server_to_hold_the_session_unless_told_not_to() -> None:
    assert settings_of({"avatar": "a"}).on_disconnect == "hold"
    settings = settings_of(
        {"image": b"jpg", "consent": True, "resume": False, "video": "fmp4", "rate": 24_000}
    )
    assert settings.to_json() == {
        "image": "anBn",
        "consent": True,
        "seed": 0,
        "input_audio": {"format": "pcm16", "rate": 24_000},
        "output": {"video": "fmp4", "audio": "pcm16", "quality": 85},
        "idle": "generate",
        "on_disconnect": "end",
    }
