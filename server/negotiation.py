"""What a client may ask of a session, checked, and what it gets. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import UnsetType

from visavis.server import events as ev
from visavis.server.avatars import check_avatar_id
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.output_choice import chosen_output
from visavis.server.protocol import FPS, check_sample_rate

T = TypeVar("T")
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetup:
    """The checked settings of a session; `image` is base64 when no `avatar_id` is given, and
    `consent` says that the person in it has agreed.

    `output` has its size and rate filled in. `ignored`: sentences about what is not followed.
    """

    avatar_id: str | None
    image: str | None
    rate: int
    seed: int
    output: ev.OutputMedia
    idle: ev.IdlePolicy
    on_disconnect: ev.OnDisconnect
    ignored: tuple[str, ...] = ()
    consent: bool = False
    prompt: str | None = None

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the pictures sent, in pixels."""
        return self.output.height or 0, self.output.width or 0

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return self.output.fps or FPS


def _value(field: T | UnsetType, default: T) -> T:
    return default if isinstance(field, UnsetType) else field


def first_setup(
    settings: ev.SessionSettings, offer: ev.OutputOffer, features: ev.Features
) -> SessionSetup:
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
        output=chosen_output(_value(settings.output, ev.OutputMedia()), offer),
        idle=_value(settings.idle, "generate"),
        on_disconnect=_value(settings.on_disconnect, "end"),
        ignored=_ignored(settings, features),
        consent=settings.consent,
        prompt=settings.prompt,
    )


def _ignored(settings: ev.SessionSettings, features: ev.Features) -> tuple[str, ...]:
    """A page that talks to several models need not know which of them take a text."""
    if settings.prompt is None or features.prompt:
        return ()
    return ("prompt is not followed: this model makes its pictures from portrait and speech alone",)


def changed_setup(
    current: SessionSetup, settings: ev.SessionSettings, given: Mapping[str, Any]
) -> tuple[ev.IdlePolicy, ev.OnDisconnect]:
    """The mutable fields after a later session.update; `given`: its settings without defaults, as
    `given_settings` has them.

    Raises ProtocolError `immutable_field` when it would change anything else. What is left out, or
    null, or as it was, changes nothing.
    """
    for name, present in _fixed(current):
        wanted: Any = given
        for part in name.split("."):
            wanted = wanted.get(part) if isinstance(wanted, Mapping) else None
        if wanted is not None and wanted != present:
            raise ProtocolError(
                ErrorCode.IMMUTABLE_FIELD,
                f"{name} cannot change within a session; open a new one",
                param=f"session.{name}",
            )
    return (
        _value(settings.idle, current.idle),
        _value(settings.on_disconnect, current.on_disconnect),
    )


def _fixed(current: SessionSetup) -> list[tuple[str, object]]:
    """What was settled by the first session.update, by the names of its fields."""
    own = ("avatar_id", "image", "consent", "prompt", "seed")
    output = ("video", "audio", "fps", "width", "height", "quality")
    return [
        *((name, getattr(current, name)) for name in own),
        ("input_audio.format", "pcm16"),
        ("input_audio.rate", current.rate),
        *((f"output.{name}", getattr(current.output, name)) for name in output),
    ]


def effective(
    setup: SessionSetup,
    *,
    codec: str,
    warnings: tuple[str, ...],
) -> ev.EffectiveSettings:
    """The body of session.updated; warnings are those about the picture."""
    height, width = setup.frame_size
    output = ev.EffectiveOutput(
        video=setup.output.video,
        codec=codec,
        audio="pcm16",
        audio_rate=setup.rate,
        fps=setup.fps,
        width=width,
        height=height,
        quality=setup.output.quality,
    )
    return ev.EffectiveSettings(
        avatar_id=setup.avatar_id,
        input_audio=ev.InputAudio(rate=setup.rate),
        output=output,
        idle=setup.idle,
        on_disconnect=setup.on_disconnect,
        seed=setup.seed,
        warnings=[*warnings, *setup.ignored],
    )
