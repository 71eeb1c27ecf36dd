"""A session of another replica goes on here, on a connection that has none of its own yet."""

from __future__ import annotations

from visavis.server.conversation import Conversation
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.handover.bundle import Bundle
from visavis.server.live_session import LiveSession
from visavis.server.opening import open_stream


async def arrive(live: LiveSession, bundle: Bundle) -> None:
    """Make `live`, which was only greeted, that session. A resume has to follow; nothing is sent
    before it.

    Raises ProtocolError for a caller that may not have it, for an avatar or a model that is another
    one here, and when there is no place.
    """
    try:
        await _arrive(live, bundle)
    except BaseException:
        live.free()
        raise


async def _arrive(live: LiveSession, bundle: Bundle) -> None:
    setup = bundle.setup
    if (live.caller and live.caller.name) != bundle.caller:
        raise ProtocolError(
            ErrorCode.NOT_PERMITTED, "the session was opened with another key", param="handle"
        )
    if live.caller is not None:
        live.caller.check_resume(setup.avatar_id)
    await _check_fits(live, bundle)
    await live.take_place(setup)
    try:
        stream = await open_stream(live, setup, bundle.stream)
    except ProtocolError:
        raise
    except ValueError as error:
        raise _gone(str(error)) from error
    live.take_identity(bundle)
    conversation = Conversation.load(
        bundle.conversation, max_buffered_input_ms=live.config.max_buffered_input_ms
    )
    live.begin(setup, stream, conversation)


async def _check_fits(live: LiveSession, bundle: Bundle) -> None:
    if bundle.model != live.host.model:
        raise _gone(f"it was made with the model {bundle.model}")
    avatar_id = bundle.setup.avatar_id
    if avatar_id is None:
        return
    if await live.host.stored_digest(avatar_id) != bundle.avatar_digest:
        raise _gone("its avatar is another one here")


def _gone(why: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.RESUME_EXPIRED,
        f"the session cannot go on here: {why}; open a new one",
        param="handle",
    )
