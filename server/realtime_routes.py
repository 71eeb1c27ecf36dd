"""The live socket, and the tokens that browsers open it with."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import structlog
from fastapi import APIRouter, Request, WebSocket
from msgspec import Meta
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from visavis.server.authentication import normal_origin
from visavis.server.avatars import check_avatar_id
from visavis.server.callers_quota import CallersQuota
from visavis.server.components import Server
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.http_errors import protocol_error_response
from visavis.server.key_asked import KEY_ASKED
from visavis.server.metrics import Stopwatch
from visavis.server.outbound import Outbound
from visavis.server.principal import Principal
from visavis.server.protocol import SUBPROTOCOL, check_subprotocols
from visavis.server.session import RealtimeSession

log = structlog.get_logger(__name__)


class SecretRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a client token is to be bound to."""

    avatar_id: Annotated[str, Meta(max_length=64)] | None = None
    origin: Annotated[str, Meta(max_length=300)] | None = None
    max_duration_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    ttl_s: Annotated[int, Meta(ge=5, le=3600)] | None = None


class SecretJson(TypedDict):
    """A client token, and what it is bound to."""

    object: Literal["realtime.client_secret"]
    value: str
    expires_at: int
    avatar_id: str | None
    origin: str | None
    max_duration_s: float | None


_SECRET_ROUTE = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    **msgspec.json.schema_components([SecretRequest])[1]["SecretRequest"],
                    "additionalProperties": False,
                }
            }
        },
    },
}


def realtime_routes(server: Server) -> APIRouter:
    """The socket /v1/realtime/avatar and POST /v1/realtime/client_secrets."""
    router = APIRouter(tags=["realtime"])

    @router.post("/v1/realtime/client_secrets", openapi_extra=_SECRET_ROUTE, dependencies=KEY_ASKED)
    async def client_secret(request: Request) -> SecretJson:
        """A short-lived token for one viewer; it opens sessions and does nothing else."""
        caller = server.caller(request, "realtime")
        if caller.kind == "token":
            raise ProtocolError(
                ErrorCode.NOT_PERMITTED, "a client token makes no tokens; use the API key"
            )
        return await _issue(server, caller, await _secret_request(request))

    @router.get("/v1/realtime/avatar", include_in_schema=False)
    async def upgrade_required() -> None:
        """For those who ask with plain HTTP."""
        raise HTTPException(
            426,
            "this is a WebSocket; docs/protocol.md says how to speak with it",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )

    @router.websocket("/v1/realtime/avatar")
    async def realtime(socket: WebSocket) -> None:
        try:
            check_subprotocols(socket.scope.get("subprotocols", []))
            principal = server.auth.socket(socket)
            server.admission.check_open()
            server.connections.check_room()
        except ProtocolError as error:
            await _refuse(socket, server, error)
            return
        await _serve(socket, server, principal)

    return router


async def _secret_request(request: Request) -> SecretRequest:
    body = await request.body()
    if not body:
        return SecretRequest()
    try:
        return msgspec.json.decode(body, type=SecretRequest)
    except msgspec.ValidationError as error:
        raise HTTPException(422, f"the body is not as it should be: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "the body is not valid JSON") from None


async def _issue(server: Server, caller: Principal, wanted: SecretRequest) -> SecretJson:
    if wanted.avatar_id is not None:
        check_avatar_id(wanted.avatar_id)
        await asyncio.to_thread(server.store.get, wanted.avatar_id, caller)
    if wanted.origin is not None and normal_origin(wanted.origin) is None:
        raise HTTPException(422, "origin: write scheme://host[:port], such as https://example.org")
    longest_s = server.config.max_session_s
    secret = server.auth.tokens.issue(
        caller,
        max_session_s=min(wanted.max_duration_s or longest_s, longest_s),
        ttl_s=wanted.ttl_s or server.config.token_ttl_s,
        avatar_id=wanted.avatar_id,
        origin=wanted.origin,
    )
    return {
        "object": "realtime.client_secret",
        "value": secret.value,
        "expires_at": secret.expires_at,
        "avatar_id": wanted.avatar_id,
        "origin": wanted.origin,
        "max_duration_s": secret.principal.max_session_s,
    }


async def _refuse(socket: WebSocket, server: Server, error: ProtocolError) -> None:
    """Tell why: after accepting, for script in a browser cannot read a handshake's status; or with
    a real HTTP answer to a server that says `Accept: application/json`."""
    server.metrics.errors.labels(code=error.code).inc()
    log.info("connection refused", code=str(error.code))
    if _is_server(socket):
        await socket.send_denial_response(protocol_error_response(error))
        return
    await _accept(socket)
    await _close_with(socket, server, error)


def _is_server(socket: WebSocket) -> bool:
    """Whether the caller reads the status and the body of a refused handshake, and says so."""
    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    return (
        "application/json" in socket.headers.get("accept", "")
        and socket.headers.get("origin") is None
        and "websocket.http.response" in extensions
    )


async def _accept(socket: WebSocket) -> None:
    # Only this name is ever selected: the token that may stand beside it is not echoed.
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)


async def _close_with(socket: WebSocket, server: Server, error: ProtocolError) -> None:
    out = Outbound(socket, server.config, server.metrics, server.admission)
    out.close_with(error)
    await out.run(lambda now_s: None)


async def _serve(socket: WebSocket, server: Server, principal: Principal) -> None:
    session = RealtimeSession(
        socket,
        host=server.host,
        admission=server.admission,
        config=server.config,
        metrics=server.metrics,
        desk=server.desk,
        caller=SocketCaller(server, principal),
        quota=CallersQuota(server.quotas, server.line_shares, principal),
    )
    structlog.contextvars.bind_contextvars(session_id=session.id, key=principal.name)
    with server.connections.serving(session):
        await _accept(socket)
        await _run(session, server)


async def _run(session: RealtimeSession, server: Server) -> None:
    watch = Stopwatch()
    log.info("socket opened")
    reason = "failed"
    with server.tracing.span("visavis.socket", {"session.id": session.id}) as span:
        try:
            reason = await session.run()
        finally:
            span.set_attribute("visavis.end_reason", reason)
            seconds = round(watch.elapsed_s(), 1)
            log.info("socket closed", reason=reason, seconds=seconds, session_id=session.id)


class SocketCaller:
    """What a session asks of whoever opened it."""

    def __init__(self, server: Server, principal: Principal) -> None:
        self.name = principal.name
        bounds = (principal.max_session_s, server.quotas.remaining_s(principal))
        # The rest of today's minutes bounds a session as its token does: announced, then enforced.
        self.max_session_s = min((b for b in bounds if b), default=None)
        self._server = server
        self._principal = principal

    def check_open(self, avatar_id: str | None) -> None:
        """Raises ProtocolError as Principal.check_open, or `avatar_not_found`."""
        self._principal.check_open(avatar_id)
        self._check_owner(avatar_id)

    def check_resume(self, avatar_id: str | None) -> None:
        """The same for a token that has expired since: it resumes what it opened."""
        self._principal.check_avatar(avatar_id)
        self._check_owner(avatar_id)

    def _check_owner(self, avatar_id: str | None) -> None:
        if avatar_id is not None:
            # A small file, once a session; the session itself reads the picture off the loop.
            self._server.store.get(avatar_id, self._principal)
