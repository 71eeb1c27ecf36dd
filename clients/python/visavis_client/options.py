"""What a session can be asked for, in one place for `connect`, `connect_sync` and both clients."""

from __future__ import annotations

import base64
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, TypedDict

from visavis_client.protocol import (
    IdlePolicy,
    InputAudio,
    OutputMedia,
    SessionQueued,
    SessionSettings,
    VideoFormat,
)

Picture = bytes | str | PathLike[str]
Playback = Literal["read", "reported", "none"]
QUEUE_S = 300.0


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of `connect`; all are optional, but one of avatar and image.

    avatar: the id of an avatar on the server.
    image: a picture instead, a path or a small file's bytes.
    consent: that the person in `image` has agreed; servers may insist on it. Default False.
    rate: of the audio in Hz, 8,000 to 48,000; default 16,000.
    video: jpeg (default; each frame stands alone), h264 (a tenth of the bytes), fmp4 or none.
    quality: of JPEG, 1 to 100; default 85.
    fps: pictures a second, one of `session.created.output.fps`; default 25. Every frame brings its
        40 ms of sound, and some of them no picture then.
    width, height: of the pictures, within `session.created.output`; one is enough. Default: the
        model's own.
    idle: what the avatar does between utterances: generate (default), loop or freeze.
    seed: the same seed and speech give the same frames.
    prompt: a text for models that take one.
    max_frames: how many frames wait here to be read; default 250. When they are as many, idle ones
        are dropped and speech holds the server back.
    resume: whether a lost connection is opened again and the session goes on; default True, as far
        as the server holds sessions.
    playback: what counts as played in the flow control: frames that were `read` (default), what
        `report_playback` says (`reported`), or nothing is said (`none`).
    queue_timeout_s: how long to wait for a place when the server is full; default 300.
    on_queue: called with each place in that queue.
    """

    avatar: str | None
    image: Picture | None
    consent: bool
    rate: int
    video: VideoFormat
    quality: int
    fps: float | None
    width: int | None
    height: int | None
    idle: IdlePolicy
    seed: int
    prompt: str | None
    max_frames: int
    resume: bool
    playback: Playback
    queue_timeout_s: float
    on_queue: Callable[[SessionQueued], None] | None


def settings_of(options: SessionOptions) -> SessionSettings:
    """The body of session.update; reads the picture. Raises ValueError without an avatar, OSError
    for a picture that cannot be read."""
    avatar, image = options.get("avatar"), options.get("image")
    if (avatar is None) == (image is None):
        raise ValueError("give either avatar, an id of avatars.list(), or image, a picture")
    if image is not None:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        encoded: str | None = base64.b64encode(data).decode()
    else:
        encoded = None
    return SessionSettings(
        avatar_id=avatar,
        image=encoded,
        consent=options.get("consent", False),
        prompt=options.get("prompt"),
        seed=options.get("seed", 0),
        input_audio=InputAudio(rate=options.get("rate", 16_000)),
        output=OutputMedia(
            video=options.get("video", "jpeg"),
            quality=options.get("quality", 85),
            fps=options.get("fps"),
            width=options.get("width"),
            height=options.get("height"),
        ),
        idle=options.get("idle", "generate"),
        on_disconnect="hold" if options.get("resume", True) else "end",
    )
