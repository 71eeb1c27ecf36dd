"""Python client of visavis: stream speech to an avatar server, get talking frames back.

    async with connect("http://127.0.0.1:8000", avatar="clara") as session:
        async for frame in session.speak(pcm16):
            ...

`connect_sync` does the same without asyncio. `events` has the server's events, `server_errors` an
exception for each of its error codes.
"""

from visavis_client.audio import Wav, read_wav
from visavis_client.client import AvatarClient, connect
from visavis_client.errors import (
    AudioFormatError,
    AvatarError,
    ConnectionFailedError,
    FrameDecodeError,
    MicrophoneError,
    MissingExtraError,
    ResponseFailedError,
    ServerError,
    SessionClosedError,
    TimedOutError,
    WireError,
)
from visavis_client.frames import AvatarFrame, FrameDecoder
from visavis_client.microphone import Microphone
from visavis_client.options import SessionOptions
from visavis_client.recorder import Recorder
from visavis_client.rest_types import (
    AvatarInfo,
    Capacity,
    ClientSecret,
    ModelInfo,
    SessionInfo,
    VideoInfo,
)
from visavis_client.retry import Retry
from visavis_client.session import AvatarSession
from visavis_client.sync import SyncAvatarClient, SyncAvatarSession, connect_sync

__all__ = [
    "AudioFormatError",
    "AvatarClient",
    "AvatarError",
    "AvatarFrame",
    "AvatarInfo",
    "AvatarSession",
    "Capacity",
    "ClientSecret",
    "ConnectionFailedError",
    "FrameDecodeError",
    "FrameDecoder",
    "Microphone",
    "MicrophoneError",
    "MissingExtraError",
    "ModelInfo",
    "Recorder",
    "ResponseFailedError",
    "Retry",
    "ServerError",
    "SessionClosedError",
    "SessionInfo",
    "SessionOptions",
    "SyncAvatarClient",
    "SyncAvatarSession",
    "TimedOutError",
    "VideoInfo",
    "Wav",
    "WireError",
    "connect",
    "connect_sync",
    "read_wav",
]
