"""The HTTP half of the client, blocking, with the standard library only."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from os import PathLike
from pathlib import Path
from typing import Any

from visavis_client.errors import AvatarError, ConnectionFailedError, ServerError, TimedOutError
from visavis_client.multipart import multipart
from visavis_client.rest_types import (
    AvatarInfo,
    Capacity,
    ClientSecret,
    ModelInfo,
    SessionInfo,
    VideoInfo,
)
from visavis_client.retry import NEVER, Retry
from visavis_client.server_errors import server_error

POLL_S = 0.25
VIDEO_POLL_S = 0.5
JSON = "application/json"
File = bytes | str | PathLike[str]


class Rest:
    """`base` is http(s)://host[:port], `token` an API key, if the server wants one.

    `retry` is for requests that may be repeated: those that only ask, and all that the server
    refused with a retryable error.
    """

    def __init__(
        self,
        base: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retry: Retry = NEVER,
    ) -> None:
        self.base = base.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._retry = retry

    # Avatars

    def list_avatars(self) -> list[AvatarInfo]:
        """All avatars, built-in ones first."""
        return [AvatarInfo.from_json(item) for item in self._json("GET", "/v1/avatars")["data"]]

    def get_avatar(self, avatar_id: str) -> AvatarInfo:
        """One avatar. Raises AvatarNotFoundError."""
        return AvatarInfo.from_json(self._json("GET", _path("avatars", avatar_id)))

    def get_image(self, avatar_id: str) -> bytes:
        """The portrait, as a JPEG or PNG file."""
        return self._call("GET", _path("avatars", avatar_id, "image"))

    def upload_avatar(
        self, image: File, *, name: str | None = None, consent: bool | None = None
    ) -> AvatarInfo:
        """Upload a picture, a path or the file's bytes.

        `consent` says that the person shown has agreed; servers may insist on it.
        Raises InvalidImageError, which says why the picture does not serve, ConsentRequiredError,
        and OSError for a path that cannot be read.
        """
        fields = {"name": name} if name is not None else {}
        if consent is not None:
            fields["consent"] = "true" if consent else "false"
        body, kind = multipart(fields, {"file": _file(image, "portrait")})
        return AvatarInfo.from_json(self._json("POST", "/v1/avatars", body, kind))

    def delete_avatar(self, avatar_id: str) -> None:
        """Delete an uploaded avatar. Raises AvatarReadOnlyError for a built-in one."""
        self._call("DELETE", _path("avatars", avatar_id))

    # The server

    def capacity(self) -> Capacity:
        """How many sessions there are and may be."""
        return Capacity.from_json(self._json("GET", "/v1/realtime/capacity"))

    def list_models(self) -> list[ModelInfo]:
        """What is loaded."""
        return [ModelInfo(item["id"], item) for item in self._json("GET", "/v1/models")["data"]]

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until the server has loaded its model. Raises TimedOutError."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self._call_once("GET", "/health/ready", None, "")
                return
            except (ServerError, ConnectionFailedError) as error:
                if time.monotonic() + POLL_S > deadline_s:
                    raise TimedOutError(
                        f"{self.base} was not ready after {timeout_s:g} s: {error.message}",
                        remedy="look at the server's log",
                    ) from error
            time.sleep(POLL_S)

    # Sessions and tokens

    def create_client_secret(
        self,
        *,
        avatar_id: str | None = None,
        origin: str | None = None,
        max_duration_s: float | None = None,
        ttl_s: int | None = None,
    ) -> ClientSecret:
        """A short-lived token for a page, so that no API key goes to browsers.

        It may be bound to one avatar and one origin; a session opened with it lasts at most
        `max_duration_s`; it opens sessions for `ttl_s` seconds from now.
        """
        claims = {
            "avatar_id": avatar_id,
            "origin": origin,
            "max_duration_s": max_duration_s,
            "ttl_s": ttl_s,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        data = json.dumps(given).encode()
        body = self._json("POST", "/v1/realtime/client_secrets", data, JSON)
        return ClientSecret(str(body["value"]), float(body["expires_at"]), body)

    def list_sessions(self) -> list[SessionInfo]:
        """The live sessions; only on the server's admin address."""
        items = self._json("GET", "/v1/realtime/sessions")["data"]
        return [SessionInfo(str(item["id"]), item) for item in items]

    def end_session(self, session_id: str) -> None:
        """End somebody's session; only on the server's admin address."""
        self._call("DELETE", _path("realtime/sessions", session_id))

    # Rendering

    def create_video(self, audio: File, *, avatar: str, seed: int = 0) -> VideoInfo:
        """Begin to render a recording, a path or a file's bytes, to an MP4 file."""
        fields = {"avatar_id": avatar, "seed": str(seed)}
        body, kind = multipart(fields, {"audio": _file(audio, "speech")})
        return _video(self._json("POST", "/v1/videos", body, kind))

    def list_videos(self) -> list[VideoInfo]:
        """The renderings of this key, oldest first."""
        return [_video(item) for item in self._json("GET", "/v1/videos")["data"]]

    def get_video(self, video_id: str) -> VideoInfo:
        """How far a rendering is."""
        return _video(self._json("GET", _path("videos", video_id)))

    def wait_video(self, video_id: str, timeout_s: float = 600.0) -> VideoInfo:
        """Wait until it is completed or failed. Raises TimedOutError."""
        deadline_s = time.monotonic() + timeout_s
        while not (video := self.get_video(video_id)).over:
            if time.monotonic() > deadline_s:
                raise TimedOutError(
                    f"the video was {video.status} ({video.progress:.0f} %) after {timeout_s:g} s",
                    remedy="wait longer, it goes on",
                )
            time.sleep(VIDEO_POLL_S)
        return video

    def get_video_content(self, video_id: str) -> bytes:
        """The MP4 file of a completed rendering."""
        return self._call("GET", _path("videos", video_id, "content"))

    def delete_video(self, video_id: str) -> None:
        """Delete a rendering, or give it up."""
        self._call("DELETE", _path("videos", video_id))

    # Requests

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        return json.loads(self._call(method, path, body, kind))

    def _call(
        self, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> bytes:
        retries = self._retry.plan()
        while True:
            try:
                return self._call_once(method, path, body, content_type)
            except AvatarError as error:
                # A lost POST may have been carried out all the same.
                again = method in ("GET", "DELETE") or isinstance(error, ServerError)
                wait_s = retries.wait_s(error) if again else None
                if wait_s is None:
                    raise
                time.sleep(wait_s)

    def _call_once(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
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
            retry_after = error.headers.get("Retry-After")
            reason = str(error.reason)
            raise error_of_reply(error.code, error.read(), reason, retry_after) from error
        except TimeoutError as error:
            raise TimedOutError(
                f"{self.base} did not answer within {self._timeout_s:g} s", remedy="try again later"
            ) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            why = getattr(error, "reason", error)
            raise ConnectionFailedError(
                f"{self.base} cannot be reached: {why}", remedy="start it with `visavis serve`"
            ) from error


def error_of_reply(status: int, body: bytes, reason: str, retry_after: str | None) -> ServerError:
    """The exception for a reply that is no success; also for one that is not of this server."""
    try:
        error = dict(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        # A proxy's own page, perhaps while the server restarts.
        retryable = status in (429, 502, 503, 504)
        error = {"code": f"http_{status}", "message": reason, "retryable": retryable}
    # The header has whole seconds, and is all that there is in a proxy's answer.
    if error.get("retry_after_s") is None and retry_after is not None and retry_after.isdigit():
        error["retry_after_s"] = float(retry_after)
    return server_error(error, status)


def _path(collection: str, name: str, part: str | None = None) -> str:
    tail = f"/{part}" if part is not None else ""
    return f"/v1/{collection}/{urllib.parse.quote(name, safe='')}{tail}"


def _file(file: File, name: str) -> tuple[str, bytes]:
    if isinstance(file, bytes):
        return name, file
    path = Path(file)
    return path.name, path.read_bytes()


def _video(body: dict[str, Any]) -> VideoInfo:
    return VideoInfo(str(body["id"]), str(body["status"]), float(body.get("progress") or 0.0), body)
