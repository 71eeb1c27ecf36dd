"""From the headers of a request or handshake to its principal; secrets go no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from visavis.server.api_keys import MAX_KEY_LENGTH, KeyRing
from visavis.server.config import is_loopback
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import ANONYMOUS, Principal
from visavis.server.protocol import TOKEN_SUBPROTOCOL_PREFIX
from visavis.server.tokens import ClientTokens, invalid_token

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Authentication:
    """How callers are known. Without keys everybody is the operator."""

    keys: KeyRing
    tokens: ClientTokens
    allowed_origins: tuple[str, ...] = ()
    # Anybody who reaches the server is its operator, and only this machine does: a page must not
    # reach it by a name of its own that it lets point here.
    local_names_only: bool = False

    @property
    def required(self) -> bool:
        """Whether a key or token is needed at all."""
        return len(self.keys) > 0

    def http(self, connection: HTTPConnection) -> Principal:
        """The caller of a request. Raises ProtocolError `missing_token` or `invalid_token`."""
        credential = _bearer(connection.headers)
        if credential is None:
            return self._nobody()
        principal = self.credential(credential)
        self._check_bound_origin(connection, principal)
        return principal

    def socket(self, connection: HTTPConnection) -> Principal:
        """The caller of a handshake. Raises ProtocolError, also for the page's origin, or the name
        that the server was called by."""
        if self.local_names_only:
            check_host(connection, self.allowed_origins)
        self.check_origin(connection)
        credential = _bearer(connection.headers) or _subprotocol(connection)
        principal = self._nobody() if credential is None else self.credential(credential)
        principal.require("realtime")
        self._check_bound_origin(connection, principal)
        return principal

    def credential(self, credential: str) -> Principal:
        """Whose key or token it is. Raises ProtocolError `invalid_token` or `token_expired`."""
        if len(credential) <= MAX_KEY_LENGTH:
            principal = self.keys.find(credential)
            if principal is not None:
                return principal
        if credential.count(".") == 2:
            return self.tokens.verify(credential)
        raise invalid_token()

    def _nobody(self) -> Principal:
        if not self.required:
            return ANONYMOUS
        raise ProtocolError(
            ErrorCode.MISSING_TOKEN,
            "this server wants `Authorization: Bearer KEY`, or from a page the subprotocol "
            f"{TOKEN_SUBPROTOCOL_PREFIX}TOKEN with a token of POST /v1/realtime/client_secrets",
        )

    def check_origin(self, connection: HTTPConnection) -> None:
        """Whether the page may connect: its own server's pages, and those in the list.

        Callers that are no browser send no Origin. Raises ProtocolError `origin_not_allowed`.
        """
        origin = connection.headers.get("origin")
        if origin is None or "*" in self.allowed_origins:
            return
        normal = normal_origin(origin)
        if normal is not None and normal in map(normal_origin, self.allowed_origins):
            return
        if normal is not None and _same_host(normal, connection):
            return
        raise ProtocolError(
            ErrorCode.ORIGIN_NOT_ALLOWED,
            "this page's origin is not the server's own and not in VISAVIS_ALLOWED_ORIGINS",
        )

    def _check_bound_origin(self, connection: HTTPConnection, principal: Principal) -> None:
        if principal.origin is None:
            return
        origin = connection.headers.get("origin")
        if origin is None or normal_origin(origin) != normal_origin(principal.origin):
            raise ProtocolError(
                ErrorCode.ORIGIN_NOT_ALLOWED, "the client token is bound to another origin"
            )


def check_host(connection: HTTPConnection, allowed_origins: Sequence[str]) -> None:
    """Whether the server was called by a name of this machine, or by that of an allowed origin.

    Else a page of evil.example, whose name points to 127.0.0.1 by now, would have the server for
    its own (DNS rebinding). Raises ProtocolError `origin_not_allowed`.
    """
    host = connection.headers.get("host")
    if host is None or "*" in allowed_origins:
        return
    name = _host_name(f"http://{host}")
    if name is not None and (
        is_loopback(name) or name in {_host_name(origin) for origin in allowed_origins}
    ):
        return
    raise ProtocolError(
        ErrorCode.ORIGIN_NOT_ALLOWED,
        "this server has no API keys and answers to localhost, 127.0.0.1 and [::1] alone, not to "
        "the name in `Host`; add the page's origin to VISAVIS_ALLOWED_ORIGINS, or set API keys",
    )


def _host_name(origin: str) -> str | None:
    if normal_origin(origin) is None:
        return None
    return (urlsplit(origin).hostname or "").rstrip(".")


def normal_origin(origin: str) -> str | None:
    """scheme://host:port in lower case with the port always there; None for no http(s) origin."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        return None
    return f"{parts.scheme}://{parts.hostname}:{port or _DEFAULT_PORTS[parts.scheme]}"


def _same_host(origin: str, connection: HTTPConnection) -> bool:
    """Compares host and port; a proxy in front may have taken TLS off, so that the scheme of the
    page, not of the request, says what the default port is."""
    scheme = origin.partition(":")[0]
    return normal_origin(f"{scheme}://{connection.headers.get('host', '')}") == origin


def _bearer(headers: Headers) -> str | None:
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    credential = credential.strip()
    return credential if scheme.lower() == "bearer" and credential else None


def _subprotocol(connection: HTTPConnection) -> str | None:
    # A browser can set no header of a WebSocket but this list of subprotocols.
    for offered in connection.scope.get("subprotocols", []):
        if offered.startswith(TOKEN_SUBPROTOCOL_PREFIX):
            return str(offered.removeprefix(TOKEN_SUBPROTOCOL_PREFIX))
    return None
