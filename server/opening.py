"""A session comes to be on a connection that was only greeted: place, avatar, stream."""

from __future__ import annotations

from visavis.server import events as ev
from visavis.server.conversation import Conversation
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.live_session import LiveSession
from visavis.server.model_host import OnProgress, decode_image_field, unwatched
from visavis.server.negotiation import SessionSetup
from visavis.server.order import StreamState
from visavis.server.stream import EngineStream

# Of what session.loading tells; the rest is to open the stream.
PREPARED_SHARE = 0.9


async def open_session(live: LiveSession, setup: SessionSetup) -> ev.SessionUpdated:
    """Take a place, prepare the avatar, and begin to produce.

    Raises ProtocolError; then the place is free again, and another try is possible.
    """
    if live.caller is not None:
        live.caller.check_open(setup.avatar_id)
    if live.config.require_consent and setup.image is not None and not setup.consent:
        raise ProtocolError(
            ErrorCode.CONSENT_REQUIRED,
            "this server takes a portrait only with consent=true beside it: the person shown has "
            "agreed",
            param="session.consent",
        )
    try:
        return await _open(live, setup)
    except BaseException:
        live.free()
        raise


async def _open(live: LiveSession, setup: SessionSetup) -> ev.SessionUpdated:
    def loading(progress: float) -> None:
        live.out.post(ev.SessionLoading(stage="avatar", progress=round(progress, 2)))

    await live.take_place(setup)
    loading(0.0)
    stream = await open_stream(live, setup, None, lambda share: loading(PREPARED_SHARE * share))
    loading(1.0)
    conversation = Conversation(
        rate=setup.rate, max_buffered_input_ms=live.config.max_buffered_input_ms
    )
    return ev.SessionUpdated(session=live.begin(setup, stream, conversation))


async def open_stream(
    live: LiveSession,
    setup: SessionSetup,
    state: StreamState | None,
    on_progress: OnProgress = unwatched,
) -> tuple[EngineStream, str, tuple[str, ...]]:
    """The stream, its codec, and what is to be said about the picture."""
    if setup.avatar_id is not None:
        avatar = await live.host.prepare_stored(setup.avatar_id, on_progress)
    else:
        image = decode_image_field(setup.image or "", live.config.max_image_bytes)
        avatar = await live.host.prepare_image(image, on_progress)
    stream, codec = await live.host.open_stream(
        avatar, rate=setup.rate, seed=setup.seed, output=setup.output, state=state
    )
    return stream, codec, tuple(avatar.warnings)
