"""The bodies inside of session events: what is asked for, what is in force, what is limited."""

from __future__ import annotations

from typing import Annotated, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from visavis.server.events.base import IdlePolicy, OnDisconnect, VideoFormat


class InputAudio(Struct, kw_only=True):
    """Format of the caller's audio: signed 16-bit little-endian mono."""

    format: Annotated[str, Meta(extra_json_schema={"enum": ["pcm16"]})] = "pcm16"
    rate: Annotated[
        int,
        Meta(
            description="Sample rate in Hz; the avatar's voice comes back at the same.",
            extra_json_schema={"minimum": 8000, "maximum": 48000},
        ),
    ] = 16000


class OutputMedia(Struct, kw_only=True):
    """What the client wants back. What is in force is said by session.updated."""

    video: Annotated[
        str,
        Meta(
            description="h264: Annex B access units; jpeg: one picture a message; fmp4: fragments "
            "for Media Source Extensions; none: sound and timing only.",
            extra_json_schema={"enum": list(get_args(VideoFormat))},
        ),
    ] = "h264"
    audio: Annotated[str, Meta(extra_json_schema={"enum": ["pcm16"]})] = "pcm16"
    fps: Annotated[
        float | None,
        Meta(
            description="Pictures a second, one of `output.fps` of session.created; sound comes "
            "with every frame of 40 ms all the same. Default: 25."
        ),
    ] = None
    width: Annotated[
        int | None,
        Meta(
            description="Pixels, even, within `output` of session.created. One side is enough: "
            "pictures keep the model's shape. Default: the model's own size."
        ),
    ] = None
    height: Annotated[int | None, Meta(description="As `width`.")] = None
    quality: Annotated[
        int,
        Meta(
            description="Of JPEG pictures; other formats keep their own.",
            extra_json_schema={"minimum": 1, "maximum": 100},
        ),
    ] = 85


class SessionSettings(Struct, kw_only=True):
    """The body of session.update. The first one names an avatar or brings an image; later ones
    change `idle` and `on_disconnect` only, and leave the rest out or as it is."""

    avatar_id: Annotated[str | None, Meta(description="An id of GET /v1/avatars.")] = None
    image: Annotated[
        str | None,
        Meta(description="A JPEG, PNG or WebP file as base64; never an address."),
    ] = None
    consent: Annotated[
        bool,
        Meta(
            description="The person in `image` has agreed. Servers may refuse an image without it "
            "(`consent_required`)."
        ),
    ] = False
    prompt: Annotated[
        str | None,
        Meta(
            description="A text for models with `features.prompt`; others say in `warnings` that "
            "they do not follow it."
        ),
    ] = None
    seed: Annotated[int, Meta(description="The same seed and speech give the same frames.")] = 0
    input_audio: Annotated[
        InputAudio | UnsetType, Meta(description="Default: pcm16 at 16,000 Hz.")
    ] = UNSET
    output: Annotated[OutputMedia | UnsetType, Meta(description="Default: h264 with pcm16.")] = (
        UNSET
    )
    idle: Annotated[
        IdlePolicy | UnsetType,
        Meta(
            description="What is shown while nobody speaks: frames made on silence, a stretch of "
            "them there and back, or the last frame. Default: generate."
        ),
    ] = UNSET
    on_disconnect: Annotated[
        OnDisconnect | UnsetType,
        Meta(
            description="hold keeps the session for `resume.ttl_s` after the socket was lost. "
            "Default: end."
        ),
    ] = UNSET


class OutputOffer(Struct, kw_only=True):
    """What `output` of session.update may ask for."""

    video: Annotated[list[str], Meta(description="Formats.")]
    fps: Annotated[list[float], Meta(description="Pictures a second, the default first.")]
    width: Annotated[int, Meta(description="Of the model's own pictures, in pixels.")]
    height: Annotated[int, Meta(description="Of the model's own pictures, in pixels.")]
    min_width: int
    max_width: int
    min_height: int
    max_height: int


class Features(Struct, kw_only=True):
    """What the model can do, of what not every model can."""

    prompt: Annotated[bool, Meta(description="Whether `prompt` of session.update is followed.")]
    listening: Annotated[
        bool, Meta(description="Whether the avatar looks different while it listens.")
    ]


class Limits(Struct, kw_only=True):
    """What the server enforces, told before it is."""

    max_message_bytes: Annotated[int, Meta(description="Of one client message.")]
    max_buffered_input_ms: Annotated[
        int, Meta(description="Audio accepted ahead of the engine; more is refused whole.")
    ]
    max_session_s: Annotated[
        float, Meta(description="From its place on; then the session ends with 4410.")
    ]
    idle_timeout_s: Annotated[
        float, Meta(description="So long without a client event or speech, then 4408.")
    ]
    max_inflight_ms: Annotated[
        int, Meta(description="Media sent and not acknowledged by playback.update.")
    ]
    slow_client_s: Annotated[
        float | UnsetType, Meta(description="So long without credit or reading, then 4408.")
    ] = UNSET
    max_input_rate: Annotated[
        float | UnsetType,
        Meta(description="Seconds of audio accepted per second, beyond a first buffer full."),
    ] = UNSET


class Timing(Struct, kw_only=True):
    """The engine's granularity."""

    fps: Annotated[float, Meta(description="Frames a second.")]
    chunk_frames: Annotated[int, Meta(description="New frames of the longest chunk.")]
    chunk_ms: Annotated[float, Meta(description="Speech that the longest chunk covers.")]
    first_frame_ms_p50: Annotated[
        float | None,
        Meta(description="Median from first audio to first frame sent; null until measured."),
    ] = None


class ResumeOffer(Struct, kw_only=True):
    """How to come back after a lost connection."""

    handle: Annotated[str, Meta(description="For session.resume; signed and opaque. A secret.")]
    ttl_s: Annotated[float, Meta(description="How long a lost session is kept.")]


class EffectiveOutput(Struct, kw_only=True):
    """The media that is really sent."""

    video: Annotated[str, Meta(extra_json_schema={"enum": list(get_args(VideoFormat))})]
    codec: Annotated[
        str,
        Meta(description="RFC 6381 string for VideoDecoder or MediaSource; jpeg; none."),
    ]
    audio: str
    audio_rate: Annotated[int, Meta(description="Hz; always the input's.")]
    fps: Annotated[float, Meta(description="Pictures a second.")]
    width: Annotated[int, Meta(description="Pixels.")]
    height: Annotated[int, Meta(description="Pixels.")]
    quality: int


class EffectiveSettings(Struct, kw_only=True):
    """What is in force, which may differ from what was asked for."""

    avatar_id: str | None
    input_audio: InputAudio
    output: EffectiveOutput
    idle: IdlePolicy
    on_disconnect: OnDisconnect
    seed: int
    warnings: Annotated[
        list[str],
        Meta(description="What about the picture may hurt the result; what is not followed."),
    ]
