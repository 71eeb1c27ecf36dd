"""Refuses requests that call a server of this machine by a name that is not one of this machine."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from visavis.server.authentication import check_host
from visavis.server.errors import ProtocolError
from visavis.server.http_errors import protocol_error_response


class HostGuard:
    """ASGI middleware: `check_host` for every HTTP request. The socket's route asks it itself, for
    it tells a refusal in its own way."""

    def __init__(self, app: ASGIApp, allowed_origins: tuple[str, ...]) -> None:
        self._app = app
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            try:
                check_host(HTTPConnection(scope), self._allowed_origins)
            except ProtocolError as error:
                await protocol_error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
