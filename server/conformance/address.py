"""Addresses of a server, and what it says of itself over HTTP."""

from __future__ import annotations

import json
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from visavis.server.protocol import ENDPOINT


def socket_url(url: str) -> str:
    """The address of the socket. Raises ValueError for anything but ws, wss, http and https."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.netloc:
        raise ValueError(f"url={url!r}: write ws://HOST:PORT or wss://HOST")
    path = parts.path if parts.path.strip("/") else ENDPOINT
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def http_base(url: str) -> str:
    """The address of the server without a path, for HTTP."""
    parts = urlsplit(socket_url(url))
    return f"{parts.scheme.replace('ws', 'http', 1)}://{parts.netloc}"


def first_avatar(url: str, token: str | None, timeout_s: float) -> str:
    """The id of the server's first avatar. Raises ValueError when it tells of none."""
    base = http_base(url)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{base}/v1/avatars", headers=headers)
    try:
        with urlopen(request, timeout=timeout_s) as reply:
            avatars = json.load(reply)["data"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{base} tells of no avatar ({error}); start the server (ours: `visavis serve`), "
            "or pass --avatar"
        ) from error
    if not avatars:
        raise ValueError(f"{base} has no avatars; upload one, or pass --avatar")
    return str(avatars[0]["id"])
