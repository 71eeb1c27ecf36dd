"""Python client of visavis: stream speech to an avatar server, get talking frames back.

    async with connect("http://127.0.0.1:8000", avatar="aurora") as session:
        async for frame in session.speak(pcm16):
            ...

`connect_sync` does the same without asyncio.
"""

from visavis_client.audio import Wav, read_wav
from visavis_client.client import AvatarClient, connect
from visavis_client.errors import (
    AudioFormatError,
    AvatarError,
    ConnectionFailedError,
    FrameDecodeError,
    ResponseFailedError,
    ServerError,
    SessionClosedError,
    TimedOutError,
    WireError,
)
from visavis_client.frames import AvatarFrame, FrameDecoder
from visavis_client.rest import AvatarInfo, Capacity
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
    "ConnectionFailedError",
    "FrameDecodeError",
    "FrameDecoder",
    "ResponseFailedError",
    "ServerError",
    "SessionClosedError",
    "SyncAvatarClient",
    "SyncAvatarSession",
    "TimedOutError",
    "Wav",
    "WireError",
    "connect",
    "connect_sync",
    "read_wav",
]
