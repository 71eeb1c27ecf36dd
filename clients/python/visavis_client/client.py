"""Connecting to a server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from visavis_client.errors import ConnectionFailedError, TimedOutError
from visavis_client.rest import Avatars, Capacity, Rest
from visavis_client.session import AvatarSession
from visavis_client.wire import SUBPROTOCOL

Video = Literal["jpeg", "h264", "none"]
Idle = Literal["generate", "loop", "freeze"]
Picture = bytes | str | PathLike[str]
DEFAULT_URL = "http://127.0.0.1:8000"
SOCKET_PATH = "/v1/realtime/avatar"
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}


class AvatarClient:
    """A server's address, and what can be done there.

    `url` is http(s):// or ws(s)://host[:port]. `token` is sent as a bearer token. `timeout_s`
    bounds every wait for an answer. Raises ConnectionFailedError for another kind of address.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, token: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._http, self._ws = split_url(url)
        self._token = token
        self._timeout_s = timeout_s
        self._rest = Rest(self._http, token=token, timeout_s=timeout_s)
        self.avatars = Avatars(self._rest)

    async def capacity(self) -> Capacity:
        """How many sessions there are and may be."""
        return await asyncio.to_thread(self._rest.capacity)

    async def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until the server has loaded its model. Raises TimedOutError."""
        await asyncio.to_thread(self._rest.wait_ready, timeout_s)

    def connect(
        self,
        *,
        avatar: str | None = None,
        image: Picture | None = None,
        rate: int = 16_000,
        video: Video = "jpeg",
        quality: int = 85,
        idle: Idle = "generate",
        seed: int = 0,
        max_frames: int = 250,
    ) -> AbstractAsyncContextManager[AvatarSession]:
        """A live session with `avatar`, an id, or with `image`, a path or a small file's bytes.

        `rate` is that of the audio in Hz, 8,000 to 48,000. `video` is jpeg (each frame stands
        alone), h264 (a tenth of the bytes) or none. `quality` steers JPEG, 1 to 100. `idle` is what
        the avatar does between utterances. At most `max_frames` wait here to be read.

        Raises ServerError (`avatar_not_found`, `capacity`, `model_loading`, `invalid_image`, ...),
        ConnectionFailedError, TimedOutError; and ValueError without an avatar.
        """
        if (avatar is None) == (image is None):
            raise ValueError("give either avatar, an id of avatars.list(), or image, a picture")
        settings: dict[str, Any] = {
            "seed": seed,
            "input_audio": {"format": "pcm16", "rate": rate},
            "output": {"video": video, "audio": "pcm16", "quality": quality},
            "idle": idle,
        }
        if image is not None:
            data = image if isinstance(image, bytes) else Path(image).read_bytes()
            settings["image"] = base64.b64encode(data).decode()
        else:
            settings["avatar_id"] = avatar
        return self._connect(settings, max_frames)

    @asynccontextmanager
    async def _connect(
        self, settings: dict[str, Any], max_frames: int
    ) -> AsyncIterator[AvatarSession]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token is not None else {}
        try:
            socket = await open_socket(
                self._ws + SOCKET_PATH,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=headers,
                compression=None,
                max_size=None,
                open_timeout=self._timeout_s,
            )
        except TimeoutError as error:
            raise TimedOutError(
                f"{self._ws} did not answer within {self._timeout_s:g} s", remedy="try again later"
            ) from error
        except (OSError, InvalidHandshake, InvalidURI) as error:
            raise ConnectionFailedError(
                f"{self._ws} cannot be reached: {error}", remedy="start it with `visavis serve`"
            ) from error
        session = AvatarSession(socket, max_frames=max_frames, timeout_s=self._timeout_s)
        try:
            await session.open(settings)
            yield session
        finally:
            await session.close()


def connect(
    url: str = DEFAULT_URL,
    *,
    avatar: str | None = None,
    image: Picture | None = None,
    rate: int = 16_000,
    video: Video = "jpeg",
    quality: int = 85,
    idle: Idle = "generate",
    seed: int = 0,
    max_frames: int = 250,
    token: str | None = None,
    timeout_s: float = 30.0,
) -> AbstractAsyncContextManager[AvatarSession]:
    """A live session; see AvatarClient and AvatarClient.connect."""
    client = AvatarClient(url, token=token, timeout_s=timeout_s)
    return client.connect(
        avatar=avatar,
        image=image,
        rate=rate,
        video=video,
        quality=quality,
        idle=idle,
        seed=seed,
        max_frames=max_frames,
    )


def split_url(url: str) -> tuple[str, str]:
    """The server's HTTP and WebSocket addresses, without a trailing slash."""
    parts = urlsplit(url)
    if parts.scheme not in _SECURE or not parts.netloc:
        raise ConnectionFailedError(
            f"url={url!r} is no address of a server", remedy=f"write it like {DEFAULT_URL}"
        )
    secure = "s" if _SECURE[parts.scheme] else ""
    rest = parts.netloc + parts.path.removesuffix(SOCKET_PATH).rstrip("/")
    return f"http{secure}://{rest}", f"ws{secure}://{rest}"
