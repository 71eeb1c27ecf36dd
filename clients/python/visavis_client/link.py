"""Opening sockets to one server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from visavis_client.errors import AvatarError, ConnectionFailedError, TimedOutError
from visavis_client.protocol import ENDPOINT, SUBPROTOCOL
from visavis_client.rest import error_of_reply

DEFAULT_URL = "http://127.0.0.1:8000"
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}
# A connection that silently went away is noticed within twice this, well before the server gives
# up a session that it holds.
KEEPALIVE_S = 10.0


def split_url(url: str) -> tuple[str, str]:
    """The server's HTTP and WebSocket addresses, without a trailing slash.

    Raises ConnectionFailedError for what is no address.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SECURE or not parts.netloc:
        raise ConnectionFailedError(
            f"url={url!r} is no address of a server", remedy=f"write it like {DEFAULT_URL}"
        )
    secure = "s" if _SECURE[parts.scheme] else ""
    rest = parts.netloc + parts.path.removesuffix(ENDPOINT).rstrip("/")
    return f"http{secure}://{rest}", f"ws{secure}://{rest}"


@dataclass(frozen=True, slots=True)
class Link:
    """How to reach a server: its ws(s):// address, a bearer token, and how long to wait."""

    base: str
    token: str | None
    timeout_s: float

    async def dial(self) -> ClientConnection:
        """A new socket. Raises ConnectionFailedError, TimedOutError, and ServerError when the
        server refuses by HTTP status."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        try:
            return await open_socket(
                self.base + ENDPOINT,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=headers,
                compression=None,
                max_size=None,
                open_timeout=self.timeout_s,
                ping_interval=KEEPALIVE_S,
                ping_timeout=KEEPALIVE_S,
            )
        except TimeoutError as error:
            raise TimedOutError(
                f"{self.base} did not answer within {self.timeout_s:g} s", remedy="try again later"
            ) from error
        except InvalidStatus as error:
            raise _refusal(error) from error
        except (OSError, InvalidHandshake, InvalidURI) as error:
            raise ConnectionFailedError(
                f"{self.base} cannot be reached: {error}", remedy="start it with `visavis serve`"
            ) from error


def _refusal(error: InvalidStatus) -> AvatarError:
    reply = error.response
    return error_of_reply(
        reply.status_code,
        bytes(reply.body or b""),
        reply.reason_phrase,
        reply.headers.get("Retry-After"),
    )
