"""A later session.update: what may change does, what would change anything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visavis.server import events as ev
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.negotiation import SessionSetup, changed_setup, first_setup
from visavis.server.output_choice import output_offer

FIRST: dict[str, Any] = {
    "image": "aGVsbG8=",
    "consent": True,
    "prompt": "a calm voice",
    "seed": 7,
    "input_audio": {"format": "pcm16", "rate": 24_000},
    "output": {
        "video": "jpeg",
        "audio": "pcm16",
        "fps": 12.5,
        "width": 128,
        "height": 128,
        "quality": 50,
    },
    "idle": "loop",
    "on_disconnect": "hold",
}


def update(session: dict[str, Any]) -> tuple[ev.SessionSettings, dict[str, Any]]:
    text = json.dumps({"type": "session.update", "session": session})
    event = ev.decode_client_event(text)
    assert isinstance(event, ev.SessionUpdate)
    return event.session, ev.given_settings(text)


@pytest.fixture
def setup() -> SessionSetup:
    settings, _ = update(FIRST)
    offer = output_offer((256, 256), 512)
    return first_setup(settings, offer, ev.Features(prompt=True, listening=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("avatar_id", "somebody"),
        ("image", "d29ybGQ="),
        ("consent", False),
        ("prompt", "a loud voice"),
        ("seed", 0),
        ("input_audio.format", "opus"),
        ("input_audio.rate", 16_000),
        ("output.video", "h264"),
        ("output.audio", "opus"),
        ("output.fps", 25),
        ("output.width", 256),
        ("output.height", 256),
        # The default, too: it was asked for otherwise.
        ("output.quality", 85),
    ],
)
def test_what_is_settled_cannot_change(setup: SessionSetup, field: str, value: Any) -> None:
    outer, _, inner = field.partition(".")
    with pytest.raises(ProtocolError) as refused:
        changed_setup(setup, *update({outer: {inner: value} if inner else value}))
    assert refused.value.code is ErrorCode.IMMUTABLE_FIELD
    assert refused.value.param == f"session.{field}"


@pytest.mark.parametrize("again", [{}, FIRST, {"output": {}}, {"output": {"quality": 50}}])
def test_what_is_left_out_or_said_again_changes_nothing(
    setup: SessionSetup, again: dict[str, Any]
) -> None:
    assert changed_setup(setup, *update(again)) == ("loop", "hold")
    changes = {"idle": "freeze", "on_disconnect": "end"}
    assert changed_setup(setup, *update(again | changes)) == ("freeze", "end")
    nothing = dict.fromkeys(("avatar_id", "image", "prompt"))
    assert changed_setup(setup, *update(nothing)) == ("loop", "hold")
