"""What the passing of time does to a session: its limits are kept, and announced first."""

from __future__ import annotations

from visavis.server.conversation import Conversation
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession

# A drain waits so long for more of an utterance that is not committed; then what came is all of it.
UNFINISHED_S = 3.0


def housekeep(live: LiveSession, now_s: float) -> None:
    """Called by the writer of a session a few times a second."""
    conversation = live.conversation
    if live.opening or (conversation is not None and conversation.speaks):
        live.deadlines.active(now_s)
    if live.lease is not None:
        live.lease.ask(now_s, live.deadlines)
    busy = conversation is not None and _busy(live, conversation, now_s)
    warning, end = live.deadlines.due(now_s, busy=busy)
    if warning is not None:
        live.out.post(warning)
    if (
        conversation is not None
        and live.deadlines.close_when_done
        and not conversation.has_committed_responses
    ):
        live.say_goodbye()
    if end is not None and end.code is ErrorCode.SERVER_DRAINING and live.can_depart:
        live.depart()
    elif end is not None:
        live.fail(end)
    elif live.out.blocked_s(now_s) > live.config.slow_client_s:
        limit = live.config.slow_client_s
        live.fail(
            ProtocolError(
                ErrorCode.SLOW_CLIENT, f"no playback.update made room for media in {limit:g} s"
            )
        )


def _busy(live: LiveSession, conversation: Conversation, now_s: float) -> bool:
    """Whether a drain has to wait. What was said is spoken first, here or on another replica: an
    utterance that nobody goes on with is committed where there is no other."""
    unfinished = not all(response.committed for response in conversation.open_responses)
    if unfinished and conversation.awaits_audio(now_s, within_s=UNFINISHED_S):
        return True
    if unfinished and live.deadlines.draining and not live.can_depart:
        live.out.post(*conversation.commit(None))
        live.wake()
    return conversation.speaks
