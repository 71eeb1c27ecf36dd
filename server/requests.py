"""Client events of a configured session, carried out."""

from __future__ import annotations

import base64
import binascii

from visavis.server import events as ev
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
            return live.cancel(event, now_s)
        case ev.SetState(state=state):
            return conversation.set_base_state(state)
        case ev.RequestKeyframe():
            conversation.request_keyframe()
        case ev.PlaybackUpdate():
            replies = conversation.playback(event.pts_us, now_s)
            live.out.acknowledged(conversation.played_pts_us or 0, event)
            return replies
    return []


def decode_audio(text: str) -> bytes:
    """pcm16 from base64. Raises ProtocolError `invalid_audio`."""
    try:
        pcm = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_AUDIO, "audio is not valid base64", param="audio"
        ) from error
    return check_pcm16(pcm)
