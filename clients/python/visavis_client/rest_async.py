"""The HTTP half for asyncio: each call runs in a thread."""

from __future__ import annotations

import asyncio

from visavis_client.rest import File, Rest
from visavis_client.rest_types import AvatarInfo, ClientSecret, SessionInfo, VideoInfo


class Avatars:
    """The server's avatars."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def list(self) -> list[AvatarInfo]:
        """See Rest.list_avatars."""
        return await asyncio.to_thread(self._rest.list_avatars)

    async def get(self, avatar_id: str) -> AvatarInfo:
        """See Rest.get_avatar."""
        return await asyncio.to_thread(self._rest.get_avatar, avatar_id)

    async def image(self, avatar_id: str) -> bytes:
        """See Rest.get_image."""
        return await asyncio.to_thread(self._rest.get_image, avatar_id)

    async def upload(
        self, image: File, *, name: str | None = None, consent: bool | None = None
    ) -> AvatarInfo:
        """See Rest.upload_avatar."""
        return await asyncio.to_thread(self._rest.upload_avatar, image, name=name, consent=consent)

    async def delete(self, avatar_id: str) -> None:
        """See Rest.delete_avatar."""
        await asyncio.to_thread(self._rest.delete_avatar, avatar_id)


class ClientSecrets:
    """Short-lived tokens for browsers."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def create(
        self,
        *,
        avatar_id: str | None = None,
        origin: str | None = None,
        max_duration_s: float | None = None,
        ttl_s: int | None = None,
    ) -> ClientSecret:
        """See Rest.create_client_secret."""
        return await asyncio.to_thread(
            self._rest.create_client_secret,
            avatar_id=avatar_id,
            origin=origin,
            max_duration_s=max_duration_s,
            ttl_s=ttl_s,
        )


class Sessions:
    """The live sessions, for administrators."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def list(self) -> list[SessionInfo]:
        """See Rest.list_sessions."""
        return await asyncio.to_thread(self._rest.list_sessions)

    async def end(self, session_id: str) -> None:
        """See Rest.end_session."""
        await asyncio.to_thread(self._rest.end_session, session_id)


class Videos:
    """Recordings rendered to files."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    async def create(self, audio: File, *, avatar: str, seed: int = 0) -> VideoInfo:
        """See Rest.create_video."""
        return await asyncio.to_thread(self._rest.create_video, audio, avatar=avatar, seed=seed)

    async def list(self) -> list[VideoInfo]:
        """See Rest.list_videos."""
        return await asyncio.to_thread(self._rest.list_videos)

    async def get(self, video_id: str) -> VideoInfo:
        """See Rest.get_video."""
        return await asyncio.to_thread(self._rest.get_video, video_id)

    async def wait(self, video_id: str, timeout_s: float = 600.0) -> VideoInfo:
        """See Rest.wait_video."""
        return await asyncio.to_thread(self._rest.wait_video, video_id, timeout_s)

    async def content(self, video_id: str) -> bytes:
        """See Rest.get_video_content."""
        return await asyncio.to_thread(self._rest.get_video_content, video_id)

    async def delete(self, video_id: str) -> None:
        """See Rest.delete_video."""
        await asyncio.to_thread(self._rest.delete_video, video_id)
