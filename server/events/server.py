"""What the server says."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from visavis.server.events.base import (
    AvatarState,
    Degradation,
    DropReason,
    ExpiryReason,
    ResponseStatus,
    ServerEvent,
    TimelineUs,
)
from visavis.server.events.settings import (
    EffectiveSettings,
    Features,
    Limits,
    OutputOffer,
    ResumeOffer,
    Timing,
)

ResponseIndex = Annotated[
    int, Meta(description="Counts responses from 1; stands in the header of their frames.")
]


class SessionCreated(ServerEvent, tag="session.created", kw_only=True):
    """The server's greeting: what counts for a session that is opened here."""

    session_id: str
    protocol: int = 1
    server_version: str
    engine: str
    model: str
    limits: Limits
    timing: Timing
    output: Annotated[
        OutputOffer | UnsetType, Meta(description="What session.update may ask for.")
    ] = UNSET
    features: Features | UnsetType = UNSET
    resume: Annotated[
        ResumeOffer | None, Meta(description="null when this server holds no sessions.")
    ] = None


class SessionQueued(ServerEvent, tag="session.queued", kw_only=True):
    """All places are taken; the client waits for one. Repeated when something changes.

    Comes after session.update and before session.loading. A client that does not want to wait
    leaves."""

    position: Annotated[int, Meta(description="1 is next.")]
    eta_s: Annotated[float | None, Meta(description="Estimate; null when nobody can tell.")] = None


class SessionLoading(ServerEvent, tag="session.loading", kw_only=True):
    """The avatar is being prepared."""

    stage: Annotated[str, Meta(description="avatar, or another of later versions.")]
    progress: Annotated[float, Meta(description="0 to 1, by steps and not by time.")]


class SessionUpdated(ServerEvent, tag="session.updated", kw_only=True):
    """The settings in force. After the first one the avatar lives and frames flow."""

    session: EffectiveSettings


class SessionResumed(ServerEvent, tag="session.resumed", kw_only=True):
    """The session goes on on this socket; what is still in time is sent again first."""

    session_id: str
    from_seq: Annotated[int, Meta(description="`seq` of the next media message.")]
    lost_frames: Annotated[
        int, Meta(description="Frames sent after `last_seq` that will not come again.")
    ]
    epoch: int
    from_pts_us: Annotated[TimelineUs, Meta(description="`pts_us` of the next media message.")]
    session: Annotated[EffectiveSettings, Meta(description="The settings, as before.")]
    resume: Annotated[ResumeOffer, Meta(description="The handle for the next time.")]
    received_seq: Annotated[
        int | None,
        Meta(description="`seq` of the last AUDIO_IN taken: send again what came after it."),
    ] = None


class AudioAppended(ServerEvent, tag="input_audio_buffer.appended", kw_only=True):
    """Audio has come; at most twice a second."""

    received_ms: Annotated[float, Meta(description="Of the open utterance, so far.")]
    buffered_ms: Annotated[float, Meta(description="Not consumed by the engine, of all.")]


class AudioCommitted(ServerEvent, tag="input_audio_buffer.committed", kw_only=True):
    """The utterance has its end."""

    response_id: str
    duration_ms: float


class AudioCleared(ServerEvent, tag="input_audio_buffer.cleared", kw_only=True):
    """What was dropped of the open utterance."""

    dropped_ms: float


class ResponseCreated(ServerEvent, tag="response.created", kw_only=True):
    """An utterance has begun with its first audio."""

    response_id: str
    response_index: ResponseIndex


class ResponseStarted(ServerEvent, tag="response.started", kw_only=True):
    """Directly before the first frame of a response."""

    response_id: str
    response_index: ResponseIndex
    pts_us: Annotated[TimelineUs, Meta(description="Of its first frame.")]


class ResponseDone(ServerEvent, tag="response.done", kw_only=True):
    """Exactly one for every response.created."""

    response_id: str
    response_index: ResponseIndex
    status: ResponseStatus
    generated_ms: Annotated[float, Meta(description="Made by the engine.")]
    sent_ms: Annotated[float, Meta(description="Sent to the client.")]
    played_ms: Annotated[
        float | None,
        Meta(description="Shown, by the client's word; null for one that never says."),
    ]
    reason: Annotated[str | None, Meta(description="Why it did not complete.")] = None


class StateChanged(ServerEvent, tag="avatar.state_changed", kw_only=True):
    """What the avatar does from a place of the timeline on."""

    state: AvatarState
    pts_us: TimelineUs


class OutputCleared(ServerEvent, tag="output.cleared", kw_only=True):
    """A cancel took effect: discard all media of a lower epoch now."""

    epoch: Annotated[int, Meta(description="Of all media from here on.")]
    from_pts_us: Annotated[
        TimelineUs, Meta(description="Of the next frame; show it as soon as it is there.")
    ]
    fade_ms: Annotated[
        int, Meta(description="First play what is there for so long, fading to silence.")
    ] = 0
    shown_pts_us: Annotated[
        int | None,
        Meta(description="The last frame seen, as far as the server knows; the face goes on there"),
    ] = None


class OutputDropped(ServerEvent, tag="output.dropped", kw_only=True):
    """Pictures were left out, and the sound of those frames was sent all the same."""

    frames: Annotated[int, Meta(description="Since the last such event.")]
    reason: DropReason


class SessionStats(ServerEvent, tag="session.stats", kw_only=True):
    """How the engine keeps up; every few seconds."""

    rtf: Annotated[
        float | None,
        Meta(description="Time to make frames over the time that they play; below 1 is good."),
    ]
    gen_fps: float
    queue_ms: Annotated[float, Meta(description="Media made and not sent.")]
    encode_ms: Annotated[float, Meta(description="Of one frame.")]
    dropped: Annotated[int, Meta(description="Pictures left out so far.")]
    degraded: Annotated[
        list[Degradation] | UnsetType,
        Meta(description="What was lowered to keep up, by the server's policy."),
    ] = UNSET
    num_steps: Annotated[int | UnsetType, Meta(description="Denoising steps in use.")] = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    fps: float | UnsetType = UNSET


class SessionExpiring(ServerEvent, tag="session.expiring", kw_only=True):
    """The session will end, and when. Sent before every end that the server decides."""

    reason: ExpiryReason
    deadline_s: Annotated[float, Meta(description="Seconds from now.")]
    resumable: Annotated[
        bool, Meta(description="Whether session.resume will work after it, on another replica.")
    ] = False


class SessionPong(ServerEvent, tag="session.pong", kw_only=True):
    """The answer to session.ping."""

    t: float | int | str | None
    server_time_us: Annotated[int, Meta(description="The server's monotonic clock.")]


class ErrorBody(Struct, kw_only=True):
    """What went wrong; also the body of HTTP errors."""

    type: Annotated[str, Meta(description="Whose fault and what kind; see the error types.")]
    code: Annotated[str, Meta(description="What exactly; see the error codes.")]
    message: Annotated[str, Meta(description="For people; its wording may change.")]
    param: Annotated[str | None, Meta(description="The field, as a dotted path.")] = None
    event_id: Annotated[str | None, Meta(description="Of the client event.")] = None
    retryable: Annotated[bool, Meta(description="The same may work later, without a change.")] = (
        False
    )
    retry_after_s: Annotated[float | None, Meta(description="How long to wait at least.")] = None


class ErrorEvent(ServerEvent, tag="error", kw_only=True):
    """Something was refused or broke. The socket stays open unless the code has a close code."""

    error: ErrorBody


SERVER_EVENTS: tuple[type[ServerEvent], ...] = (
    SessionCreated,
    SessionQueued,
    SessionLoading,
    SessionUpdated,
    SessionResumed,
    AudioAppended,
    AudioCommitted,
    AudioCleared,
    ResponseCreated,
    ResponseStarted,
    ResponseDone,
    StateChanged,
    OutputCleared,
    OutputDropped,
    SessionStats,
    SessionExpiring,
    SessionPong,
    ErrorEvent,
)
