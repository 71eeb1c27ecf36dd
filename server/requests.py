"""Client events of a configured session, carried out."""

from __future__ import annotations

import base64
import binascii

from visavis.server import events as ev
from visavis.server.conversation import MAX_FADE_MS
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession
from visavis.server.protocol import check_pcm16


def handle_event(live: LiveSession, event: ev.ClientEvent, now_s: float) -> list[ev.ServerEvent]:
    """What the session answers to anything but session.update, resume, ping and close.

    Raises ProtocolError `session_not_configured` before the first session.update was answered.
    """
    conversation = live.conversation
    if conversation is None:
        raise ProtocolError(
            ErrorCode.SESSION_NOT_CONFIGURED,
            "session.update must come first: it says which avatar speaks",
        )
    match event:
        case ev.AudioAppend(audio=audio, response_id=response_id):
            return live.append(decode_audio(audio), response_id, now_s)
        case ev.AudioCommit(response_id=response_id):
            return conversation.commit(response_id)
        case ev.AudioClear():
            return conversation.clear()
        case ev.ResponseCancel():
            return cancel(live, event, now_s)
        case ev.SetState(state=state):
            return conversation.set_base_state(state)
        case ev.RequestKeyframe():
            conversation.request_keyframe()
        case ev.PlaybackUpdate():
            replies = conversation.playback(event.pts_us, now_s)
            live.out.acknowledged(conversation.played_pts_us or 0, event)
            return replies
    return []


def cancel(live: LiveSession, event: ev.ResponseCancel, now_s: float) -> list[ev.ServerEvent]:
    """Barge-in: the engine goes on from what the viewer sees when the fade is over."""
    conversation, media = live.conversation, live.out.media
    assert conversation is not None
    assert media is not None
    epoch = conversation.epoch
    fade_ms = min(max(event.fade_ms or 0, 0), MAX_FADE_MS)
    shown_us = media.shown_pts_us(now_s)
    events = conversation.cancel(
        event.response_id,
        fade_ms=fade_ms,
        shown_pts_us=None if shown_us is None else shown_us + fade_ms * 1000,
    )
    if conversation.epoch != epoch:
        live.out.cleared(now_s)
    return events


def decode_audio(text: str) -> bytes:
    """pcm16 from base64. Raises ProtocolError `invalid_audio`."""
    try:
        pcm = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_AUDIO, "audio is not valid base64", param="audio"
        ) from error
    return check_pcm16(pcm)
