"""A session that lost its socket goes on on another: what was missed first, then what waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.encoder import codec_level
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import FRAME_US
from visavis.server.recode import Recoder, recoded
from visavis.server.sent_ring import SentEvent, SentMedia, as_first, with_picture
from visavis.server.timeline import SEQ_MASK

if TYPE_CHECKING:
    from visavis.server.live_session import LiveSession


async def resume(live: LiveSession, request: ev.SessionResume, socket: WebSocket) -> None:
    """Go on on `socket`: the missed part first, then what was waiting.

    Raises ProtocolError `invalid_event` for a `last_seq` that was never sent.
    """
    conversation, media = live.conversation, live.out.media
    assert conversation is not None
    assert media is not None
    assert live.effective is not None
    timeline, ring = conversation.timeline, live.out.ring
    seq = request.last_seq
    num_after = 0 if seq is None else (timeline.next_seq - seq - 1) & SEQ_MASK
    if num_after > timeline.next_index:
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            f"last_seq={seq} was not sent yet, the next one is {timeline.next_seq}; "
            "give the seq of the last media message received",
            param="last_seq",
            event_id=request.event_id,
        )
    had = _event_number(request.last_event_id)
    missed = ring.after(
        seq,
        had,
        epoch=timeline.epoch,
        played_pts_us=conversation.played_pts_us,
    )
    frames = [item for item in missed if isinstance(item, SentMedia)]
    lost = 0
    if seq is not None:
        lost = max(0, num_after - len(frames) - ring.num_void_after(seq, timeline.epoch))
    conversation.request_keyframe()
    missed, recoder = await _with_keyframe(live, missed, frames)
    first = next((item for item in missed if isinstance(item, SentMedia)), None)
    if first is None:
        timeline.mark_discontinuity()
    first_us = timeline.next_pts_us if first is None else first.header.pts_us
    resumed = ev.SessionResumed(
        session_id=live.id,
        from_seq=timeline.next_seq if first is None else first.header.seq,
        lost_frames=lost,
        epoch=timeline.epoch,
        from_pts_us=first_us,
        session=live.effective,
        resume=live.offer(),
        received_seq=live.received_seq,
    )
    if request.event_id is not None:
        resumed.source_event_id = request.event_id
    media.restart(first_us // FRAME_US, time.monotonic(), recoder)
    live.deadlines.resumed(time.monotonic())
    live.out.rebind(socket, resumed, missed, had=had)
    live.wake()


async def _with_keyframe(
    live: LiveSession, missed: list[SentEvent | SentMedia], frames: list[SentMedia]
) -> tuple[list[SentEvent | SentMedia], Recoder | None]:
    """The same, but what comes next can be decoded alone: by a page that was loaded anew.

    The recoder goes on with what was made before and not sent yet.
    """
    assert live.setup is not None
    assert live.effective is not None
    ring = live.out.ring
    replay: dict[int, SentMedia] = {frame.order: frame for frame in frames}
    recoder = None
    if live.setup.output.video in ("h264", "fmp4"):
        level = codec_level(live.effective.output.codec)
        recoder = Recoder(fps=live.setup.fps, level=level)
        reference = ring.reference(frames[0] if frames else None)
        pictures = [frame.video for frame in frames]
        coded = await asyncio.to_thread(recoded, recoder, reference, pictures)
        for frame, (video, keyframe) in zip(frames, coded, strict=True):
            replay[frame.order] = with_picture(frame, video, keyframe=keyframe)
            # What is lost again is predicted from what was sent now.
            ring.replace(replay[frame.order])
    if frames:
        replay[frames[0].order] = as_first(replay[frames[0].order])
    again = [replay[item.order] if isinstance(item, SentMedia) else item for item in missed]
    return again, recoder


def _event_number(event_id: str | None) -> int | None:
    """The number in one of our event ids; None for anything else.

    That of `session.resumed` begins with the number of the event that it follows.
    """
    number = "" if event_id is None else event_id.removeprefix("evt_").partition("_")[0]
    return int(number) if number.isdecimal() else None
