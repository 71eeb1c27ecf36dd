"""Connecting to a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Unpack

from visavis_client.errors import AvatarError
from visavis_client.link import DEFAULT_URL, Link, split_url
from visavis_client.options import QUEUE_S, SessionOptions, settings_of
from visavis_client.protocol import SessionSettings
from visavis_client.rest import Rest
from visavis_client.rest_async import Avatars, ClientSecrets, Sessions, Videos
from visavis_client.rest_types import Capacity, ModelInfo
from visavis_client.resume import Reconnector
from visavis_client.retry import Retry
from visavis_client.session import AvatarSession


class AvatarClient:
    """A server's address, and what can be done there.

    `url` is http(s):// or ws(s)://host[:port]. `token` is an API key or a client secret.
    `timeout_s` bounds every wait for an answer. `retry` says how often is tried again: connecting,
    and requests that change nothing. Raises ConnectionFailedError for another kind of address.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retry: Retry | None = None,
    ) -> None:
        http, base = split_url(url)
        self._link = Link(base, token, timeout_s)
        self._retry = retry if retry is not None else Retry()
        self._rest = Rest(http, token=token, timeout_s=timeout_s, retry=self._retry)
        self.avatars = Avatars(self._rest)
        self.client_secrets = ClientSecrets(self._rest)
        self.sessions = Sessions(self._rest)
        self.videos = Videos(self._rest)

    async def capacity(self) -> Capacity:
        """How many sessions there are and may be."""
        return await asyncio.to_thread(self._rest.capacity)

    async def models(self) -> list[ModelInfo]:
        """What is loaded."""
        return await asyncio.to_thread(self._rest.list_models)

    async def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until the server has loaded its model. Raises TimedOutError."""
        await asyncio.to_thread(self._rest.wait_ready, timeout_s)

    def connect(
        self, **options: Unpack[SessionOptions]
    ) -> AbstractAsyncContextManager[AvatarSession]:
        """A live session; see SessionOptions for the arguments.

        Raises ServerError (AvatarNotFoundError, CapacityError, InvalidImageError, ...),
        ConnectionFailedError, TimedOutError; and ValueError without an avatar.
        """
        return self._connect(settings_of(options), options)

    @asynccontextmanager
    async def _connect(
        self, settings: SessionSettings, options: SessionOptions
    ) -> AsyncIterator[AvatarSession]:
        session = await self._open(settings, options)
        try:
            yield session
        finally:
            await session.close()

    async def _open(self, settings: SessionSettings, options: SessionOptions) -> AvatarSession:
        retries = self._retry.plan()
        while True:
            try:
                return await self._open_once(settings, options)
            except AvatarError as error:
                wait_s = retries.wait_s(error)
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)

    async def _open_once(self, settings: SessionSettings, options: SessionOptions) -> AvatarSession:
        socket = await self._link.dial()
        session = AvatarSession(
            socket,
            max_frames=options.get("max_frames", 250),
            timeout_s=self._link.timeout_s,
            playback=options.get("playback", "read"),
            reconnector=Reconnector(self._link.dial),
            on_queue=options.get("on_queue"),
        )
        try:
            queue_timeout_s = options.get("queue_timeout_s", QUEUE_S)
            await session.open(settings, queue_timeout_s=queue_timeout_s)
        except BaseException:
            await session.close()
            raise
        return session


def connect(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    timeout_s: float = 30.0,
    retry: Retry | None = None,
    **options: Unpack[SessionOptions],
) -> AbstractAsyncContextManager[AvatarSession]:
    """A live session; see AvatarClient for the first arguments, SessionOptions for the others."""
    client = AvatarClient(url, token=token, timeout_s=timeout_s, retry=retry)
    return client.connect(**options)
