"""What a client may say."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from visavis.server.events.base import ClientEvent, ResponseId, TimelineUs
from visavis.server.events.settings import SessionSettings


class SessionUpdate(ClientEvent, tag="session.update", kw_only=True):
    """First event of a new session; later only `idle` and `on_disconnect` may change.

    Answered by session.updated."""

    session: SessionSettings


class SessionResume(ClientEvent, tag="session.resume", kw_only=True):
    """First event on a new socket for a session that lost its own. Answered by session.resumed.

    The handle alone is the right to the session: whoever sends it takes over, and an older
    socket that is still open is closed with 4409."""

    handle: Annotated[str, Meta(description="`resume.handle` of session.created.")]
    last_seq: Annotated[
        int | None,
        Meta(description="`seq` of the last media message received; null for none."),
    ] = None
    last_event_id: Annotated[
        str | None,
        Meta(description="`event_id` of the last event received; later ones are sent again."),
    ] = None


class AudioAppend(ClientEvent, tag="input_audio_buffer.append", kw_only=True):
    """Speech for the open utterance; the base64 twin of the binary AUDIO_IN message."""

    audio: Annotated[str, Meta(description="pcm16 as base64, whole samples.")]
    response_id: ResponseId | None = None


class AudioCommit(ClientEvent, tag="input_audio_buffer.commit", kw_only=True):
    """End of the utterance. Answered by input_audio_buffer.committed."""

    response_id: ResponseId | None = None


class AudioClear(ClientEvent, tag="input_audio_buffer.clear", kw_only=True):
    """Drop what the engine has not taken of the open utterance.

    Answered by input_audio_buffer.cleared."""


class ResponseCancel(ClientEvent, tag="response.cancel", kw_only=True):
    """Barge-in. With an id that response and all later ones end, without one everything.

    Never an error, also when nothing is said. Answered by output.cleared and the response.done
    of what was open."""

    response_id: ResponseId | None = None
    fade_ms: Annotated[
        int | None,
        Meta(
            description="The client goes on playing for so long, its sound fading to silence, and "
            "the face goes on from there. Bounded to 0..500; default 0."
        ),
    ] = None


class SetState(ClientEvent, tag="avatar.set_state", kw_only=True):
    """What the avatar does while it does not speak. Answered by avatar.state_changed on change."""

    state: Literal["idle", "listening"]


class RequestKeyframe(ClientEvent, tag="output.request_keyframe", kw_only=True):
    """The client's decoder lost its thread: the next frame made can be decoded alone."""


class PlaybackUpdate(ClientEvent, tag="playback.update", kw_only=True):
    """Where the client's playback stands, every 250 to 500 ms; the credit of the flow control."""

    pts_us: Annotated[TimelineUs, Meta(description="The frame on screen.")]
    seq: Annotated[int, Meta(description="`seq` of the last media message received.")] = 0
    buffered_ms: Annotated[float, Meta(description="Media received and not shown.")] = 0.0
    underruns: Annotated[int, Meta(description="Times that media came too late, in all.")] = 0
    skew_ms: Annotated[
        float | None, Meta(description="Video behind sound, if the client measures it.")
    ] = None


class SessionPing(ClientEvent, tag="session.ping", kw_only=True):
    """Round trip and clock offset. Answered by session.pong."""

    t: Annotated[float | int | str | None, Meta(description="Comes back as it is.")] = None


class SessionClose(ClientEvent, tag="session.close", kw_only=True):
    """Leave. The server closes with 1000."""

    drain: Annotated[bool, Meta(description="Speak what was committed to its end first.")] = False


CLIENT_EVENTS: tuple[type[ClientEvent], ...] = (
    SessionUpdate,
    SessionResume,
    AudioAppend,
    AudioCommit,
    AudioClear,
    ResponseCancel,
    SetState,
    RequestKeyframe,
    PlaybackUpdate,
    SessionPing,
    SessionClose,
)
