"""What a client may ask of a session, checked, and what it gets. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, get_args

from msgspec import UnsetType

from visavis.server import events as ev
from visavis.server.avatars import check_avatar_id
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.protocol import check_sample_rate

T = TypeVar("T")
VIDEO_FORMATS: tuple[str, ...] = get_args(ev.VideoFormat)
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetup:
    """The checked settings of a session; `image` is base64 when no `avatar_id` is given."""

    avatar_id: str | None
    image: str | None
    rate: int
    seed: int
    output: ev.OutputMedia
    idle: ev.IdlePolicy
    on_disconnect: ev.OnDisconnect


def _value(field: T | UnsetType, default: T) -> T:
    return default if isinstance(field, UnsetType) else field


def first_setup(settings: ev.SessionSettings) -> SessionSetup:
    """Check the first session.update. Raises ProtocolError that names the field."""
    if (settings.avatar_id is None) == (settings.image is None):
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            "session needs either avatar_id or image (base64), and not both; "
            "GET /v1/avatars lists the avatars",
            param="session.avatar_id",
        )
    if settings.avatar_id is not None:
        check_avatar_id(settings.avatar_id)
    audio = _value(settings.input_audio, ev.InputAudio())
    if audio.format != "pcm16":
        raise ProtocolError(
            ErrorCode.UNSUPPORTED_VALUE,
            f"input_audio.format={audio.format!r}: only pcm16 is supported",
            param="session.input_audio.format",
        )
    if not 0 <= settings.seed <= MAX_SEED:
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            f"seed={settings.seed} is outside 0..{MAX_SEED}",
            param="session.seed",
        )
    return SessionSetup(
        avatar_id=settings.avatar_id,
        image=settings.image,
        rate=check_sample_rate(audio.rate),
        seed=settings.seed,
        output=_check_output(_value(settings.output, ev.OutputMedia())),
        idle=_value(settings.idle, "generate"),
        on_disconnect=_value(settings.on_disconnect, "end"),
    )


def _check_output(output: ev.OutputMedia) -> ev.OutputMedia:
    if output.video not in VIDEO_FORMATS:
        raise ProtocolError(
            ErrorCode.UNSUPPORTED_VALUE,
            f"output.video={output.video!r}: this server has {', '.join(VIDEO_FORMATS)}",
            param="session.output.video",
        )
    if output.audio != "pcm16":
        raise ProtocolError(
            ErrorCode.UNSUPPORTED_VALUE,
            f"output.audio={output.audio!r}: only pcm16 is supported",
            param="session.output.audio",
        )
    if not 1 <= output.quality <= 100:
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            f"output.quality={output.quality} is outside 1..100",
            param="session.output.quality",
        )
    return output


def changed_setup(
    current: SessionSetup, settings: ev.SessionSettings
) -> tuple[ev.IdlePolicy, ev.OnDisconnect]:
    """The mutable fields after a later session.update.

    Raises ProtocolError `immutable_field` when it would change anything else.
    """
    fixed: list[tuple[str, object, object]] = [
        ("avatar_id", settings.avatar_id or current.avatar_id, current.avatar_id),
        ("image", settings.image or current.image, current.image),
        (
            "input_audio.rate",
            _value(settings.input_audio, ev.InputAudio(rate=current.rate)).rate,
            current.rate,
        ),
        ("output.video", _value(settings.output, current.output).video, current.output.video),
    ]
    for name, asked, has in fixed:
        if asked != has:
            raise ProtocolError(
                ErrorCode.IMMUTABLE_FIELD,
                f"{name} cannot change within a session; open a new one",
                param=f"session.{name}",
            )
    return (
        _value(settings.idle, current.idle),
        _value(settings.on_disconnect, current.on_disconnect),
    )


def effective(
    setup: SessionSetup,
    *,
    codec: str,
    frame_size: tuple[int, int],
    fps: int,
    warnings: tuple[str, ...],
) -> ev.EffectiveSettings:
    """The body of session.updated; frame_size is (height, width) in pixels."""
    output = ev.EffectiveOutput(
        video=setup.output.video,
        codec=codec,
        audio="pcm16",
        audio_rate=setup.rate,
        fps=fps,
        width=frame_size[1],
        height=frame_size[0],
        quality=setup.output.quality,
    )
    return ev.EffectiveSettings(
        avatar_id=setup.avatar_id,
        input_audio=ev.InputAudio(rate=setup.rate),
        output=output,
        idle=setup.idle,
        on_disconnect=setup.on_disconnect,
        seed=setup.seed,
        warnings=list(warnings),
    )
