"""Avatars, capacity and health over HTTP, with the standard library only."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from visavis_client.errors import ConnectionFailedError, ServerError, TimedOutError
from visavis_client.events import server_error

POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class AvatarInfo:
    """An avatar on the server; `warnings` are sentences about the picture."""

    id: str
    name: str
    builtin: bool
    warnings: tuple[str, ...]
    image_url: str
    credit: str | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sessions at a time; `state` is loading, ready, failed or draining."""

    active: int
    max: int
    state: str


class Rest:
    """The blocking half of the client. `base` is http(s)://host[:port], `token` is optional."""

    def __init__(self, base: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        self.base = base.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s

    def list_avatars(self) -> list[AvatarInfo]:
        """All avatars, built-in ones first."""
        return [_avatar(item) for item in self._json("GET", "/v1/avatars")["data"]]

    def get_avatar(self, avatar_id: str) -> AvatarInfo:
        """One avatar. Raises ServerError `avatar_not_found`."""
        return _avatar(self._json("GET", _path(avatar_id)))

    def get_image(self, avatar_id: str) -> bytes:
        """The portrait, as a JPEG or PNG file."""
        return self._call("GET", f"{_path(avatar_id)}/image")

    def upload_avatar(
        self, image: bytes | str | PathLike[str], *, name: str | None = None
    ) -> AvatarInfo:
        """Upload a picture, a path or the file's bytes.

        Raises ServerError `invalid_image`, which says why the picture does not serve, and OSError
        for a path that cannot be read.
        """
        if isinstance(image, bytes):
            data, file_name = image, "portrait"
        else:
            data, file_name = Path(image).read_bytes(), Path(image).name
        fields = {"name": name} if name is not None else {}
        body, content_type = _multipart(fields, file_name, data)
        return _avatar(self._json("POST", "/v1/avatars", body, content_type))

    def delete_avatar(self, avatar_id: str) -> None:
        """Delete an uploaded avatar. Raises ServerError `avatar_read_only` for a built-in one."""
        self._call("DELETE", _path(avatar_id))

    def capacity(self) -> Capacity:
        """How many sessions there are and may be."""
        body = self._json("GET", "/v1/realtime/capacity")
        return Capacity(body["active"], body["max"], body["state"])

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until the server has loaded its model. Raises TimedOutError."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self._call("GET", "/health/ready")
                return
            except (ServerError, ConnectionFailedError) as error:
                if time.monotonic() + POLL_S > deadline_s:
                    raise TimedOutError(
                        f"{self.base} was not ready after {timeout_s:g} s: {error.message}",
                        remedy="look at the server's log",
                    ) from error
            time.sleep(POLL_S)

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        return json.loads(self._call(method, path, body, kind))

    def _call(
        self, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(
            self.base + path, data=body, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:
                data: bytes = reply.read()
                return data
        except urllib.error.HTTPError as error:
            raise _http_error(error) from error
        except TimeoutError as error:
            raise TimedOutError(
                f"{self.base} did not answer within {self._timeout_s:g} s", remedy="try again later"
            ) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ConnectionFailedError(
                f"{self.base} cannot be reached: {reason}", remedy="start it with `visavis serve`"
            ) from error


class Avatars:
    """The same for asyncio: each call runs in a thread."""

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
        self, image: bytes | str | PathLike[str], *, name: str | None = None
    ) -> AvatarInfo:
        """See Rest.upload_avatar."""
        return await asyncio.to_thread(self._rest.upload_avatar, image, name=name)

    async def delete(self, avatar_id: str) -> None:
        """See Rest.delete_avatar."""
        await asyncio.to_thread(self._rest.delete_avatar, avatar_id)


def _path(avatar_id: str) -> str:
    return f"/v1/avatars/{urllib.parse.quote(avatar_id, safe='')}"


def _avatar(body: dict[str, Any]) -> AvatarInfo:
    return AvatarInfo(
        id=body["id"],
        name=body.get("name", ""),
        builtin=bool(body.get("builtin")),
        warnings=tuple(body.get("warnings") or ()),
        image_url=body.get("image_url", ""),
        credit=body.get("credit"),
    )


def _http_error(error: urllib.error.HTTPError) -> ServerError:
    try:
        body = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        body = {"code": f"http_{error.code}", "message": str(error.reason)}
    retry = error.headers.get("Retry-After")
    if retry is not None and retry.isdigit():
        body["retry_after_s"] = float(retry)
    return server_error(body, error.code)


def _multipart(fields: dict[str, str], file_name: str, data: bytes) -> tuple[bytes, str]:
    """A multipart/form-data body with one file called `file`, and its content type."""
    boundary = secrets.token_hex(16)
    safe_name = file_name.replace('"', "_").replace("\r", "_").replace("\n", "_")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{safe_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = b"".join([*parts, head.encode(), data, f"\r\n--{boundary}--\r\n".encode()])
    return body, f"multipart/form-data; boundary={boundary}"
