"""For each check of the conformance kit a fault that it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faulty_proxy import Alter, Message, Select, on_event, on_media, the_protocols_own, without

Event = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """`alter` makes what changes the server's messages, anew for each test; the others are those of
    `faulty`."""

    alter: Callable[[], Alter] = lambda: unchanged
    close: int | None = None
    select: Select = the_protocols_own
    compression: str | None = None


def unchanged(message: Message) -> list[Message]:
    return [message]


def silence(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[32 : 32 + audio_len] = bytes(audio_len)


def no_sound(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[24:28] = bytes(4)
    del message[32 : 32 + audio_len]


def no_flags(message: bytearray) -> None:
    message[1] &= ~17


def stopped_clock(message: bytearray) -> None:
    message[8:16] = bytes(8)


def fast_clock(message: bytearray) -> None:
    pts_us = 8 * int.from_bytes(message[8:16], "little")
    message[8:16] = pts_us.to_bytes(8, "little")


def no_pictures(message: bytearray) -> None:
    audio_len = int.from_bytes(message[24:28], "little")
    message[28:32] = bytes(4)
    del message[32 + audio_len :]


def later(message: bytearray) -> None:
    pts_us = int.from_bytes(message[8:16], "little") + 40_000
    message[8:16] = pts_us.to_bytes(8, "little")


class KeyframesOnce:
    """Only the first keyframe is marked as one."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, message: Message) -> list[Message]:
        if isinstance(message, str) or not message[1] & 1:
            return [message]
        self.seen += 1
        kept = message if self.seen == 1 else bytes([message[0], message[1] & ~1, *message[2:]])
        return [kept]


def without_configuration(message: Message) -> list[Message]:
    return [] if isinstance(message, bytes) and message[0] == 3 else [message]


def another_width(event: Event) -> list[Event]:
    event["session"]["output"]["width"] += 2
    return [event]


def another_seed(event: Event) -> list[Event]:
    event["session"]["seed"] += 1
    return [event]


def not_frozen(event: Event) -> list[Event]:
    event["session"]["idle"] = "generate"
    return [event]


def never(event: Event) -> list[Event]:
    return []


def twice(event: Event) -> list[Event]:
    return [event, event]


def with_field(name: str, value: Any) -> Callable[[Event], list[Event]]:
    return lambda event: [event | {name: value}]


def complaint(event: Event) -> list[Event]:
    """An error that nothing was the reason for, then the event."""
    body = {
        "type": "invalid_request_error",
        "code": "invalid_event",
        "message": "no reason",
        "param": None,
        "event_id": None,
        "retryable": False,
        "retry_after_s": None,
    }
    return [{"type": "error", "event_id": "complaint", "error": body}, event]


def another_code(event: Event) -> list[Event]:
    return [event | {"error": event["error"] | {"code": "internal_error"}}]


def said(kind: str, change: Callable[[Event], list[Event]]) -> Fault:
    """Events of that type are changed."""
    return Fault(lambda: on_event(kind, change))


def shown(change: Callable[[bytearray], None]) -> Fault:
    """Media are changed."""
    return Fault(lambda: on_media(change))


WRONG_CLOSE = Fault(close=1000)
WRONG_CODE = said("error", another_code)
COMPLAINT = said("session.pong", complaint)

# At a server with the usual settings.
FAULTS = {
    "handshake.subprotocol": Fault(select=lambda names: None),
    "handshake.unsupported": said("error", never),
    "handshake.token": Fault(select=lambda names: names[-1]),
    "handshake.compression": Fault(compression="deflate"),
    "handshake.greeting": said("session.created", without("limits")),
    "handshake.order": WRONG_CODE,
    "session.effective": said("session.updated", another_seed),
    "session.loading": said("session.loading", with_field("progress", 1.5)),
    "session.image": WRONG_CODE,
    "session.unknown_avatar": WRONG_CLOSE,
    "session.rate": said("error", without("param")),
    "session.immutable": WRONG_CODE,
    "session.mutable": said("session.updated", not_frozen),
    "session.close": Fault(close=1001),
    "session.drain": shown(silence),
    "session.fps": said("error", without("param")),
    "session.size": said("error", without("param")),
    "events.ping": said("session.pong", with_field("t", "another")),
    "events.state": said("avatar.state_changed", with_field("state", "idle")),
    "events.ids": said("input_audio_buffer.committed", without("event_id")),
    "events.appended": said("input_audio_buffer.appended", twice),
    "unknown.event": COMPLAINT,
    "unknown.field": COMPLAINT,
    "unknown.kind": COMPLAINT,
    "unknown.header": said("input_audio_buffer.committed", with_field("duration_ms", 205.0)),
    "malformed.json": WRONG_CODE,
    "malformed.event": said("error", without("param")),
    "malformed.shape": said("error", without("retryable")),
    "malformed.frame": WRONG_CODE,
    "malformed.audio": WRONG_CODE,
    "malformed.commit": WRONG_CODE,
    "malformed.binary": WRONG_CLOSE,
    "malformed.many": WRONG_CLOSE,
    "malformed.large": WRONG_CLOSE,
    "media.idle": shown(stopped_clock),
    "media.h264": shown(no_flags),
    "media.jpeg": shown(no_flags),
    "media.none": shown(no_sound),
    "media.size": said("session.updated", another_width),
    "media.fps": shown(no_pictures),
    "media.keyframe": Fault(KeyframesOnce),
    "media.gop": Fault(KeyframesOnce),
    "media.fmp4": Fault(lambda: without_configuration),
    "response.order": said("response.started", never),
    "response.states": said("avatar.state_changed", with_field("pts_us", 1)),
    "response.audio": shown(silence),
    "response.base64": said("response.done", with_field("response_id", "another")),
    "response.queue": said("response.done", twice),
    "response.played": said("response.done", with_field("played_ms", None)),
    "response.clear": COMPLAINT,
    "response.not_found": WRONG_CODE,
    "cancel.idle": COMPLAINT,
    "cancel.speaking": shown(no_flags),
    "cancel.twice": said("response.done", twice),
    "cancel.late_audio": said("response.created", twice),
    "cancel.by_id": said("response.done", with_field("status", "completed")),
    "cancel.again": shown(silence),
    "cancel.prompt": said("output.cleared", never),
    "flow.fast_input": said("response.started", complaint),
    "flow.overflow": said("error", without("retry_after_s")),
    "resume.continues": said("session.created", with_field("resume", {"handle": "x.y"})),
    "resume.received": said("session.resumed", with_field("received_seq", 4)),
    "resume.bounded": said("session.resumed", with_field("lost_frames", 0)),
    "resume.keyframe": shown(no_flags),
    "resume.wrong_handle": WRONG_CLOSE,
    "resume.end": WRONG_CLOSE,
    "resume.closed": WRONG_CODE,
    "resume.taken_over": WRONG_CLOSE,
    "access.origin": said("error", never),
    "stats.figures": said("session.stats", without("gen_fps")),
}
# More of them, for what a check looks at besides.
MORE = (
    ("media.fmp4", shown(later)),
    ("handshake.unsupported", WRONG_CLOSE),
    ("access.origin", WRONG_CLOSE),
    ("malformed.binary", WRONG_CODE),
    ("session.loading", said("session.loading", never)),
    ("session.image", said("error", without("event_id"))),
    ("resume.received", said("session.resumed", without("received_seq"))),
)
# At a server that is impatient.
IMPATIENT = {
    "handshake.timeout": WRONG_CLOSE,
    "flow.credit": shown(fast_clock),
    "flow.dropped": said("output.dropped", never),
    "flow.no_credit": WRONG_CLOSE,
}
# At one with keys, one with few places, and those with short limits.
GUARDED = ("access.missing", "access.invalid")
QUEUE = {
    "queue.line": said("session.queued", with_field("position", 1)),
    "queue.full": said("error", without("retry_after_s")),
}
BRIEF = {
    "limits.idle": {"idle_timeout_s": 2.0},
    "limits.duration": {"idle_timeout_s": 2.0, "max_session_s": 2.5},
}
# Against a server that says nothing but an error.
REFUSING = ("access.loading",)
