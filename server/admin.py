"""Metrics and administration, on a port of their own."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from visavis.server.components import Server
from visavis.server.config import is_loopback
from visavis.server.health import health_routes
from visavis.server.host_guard import HostGuard
from visavis.server.http_errors import REFUSALS, BodyLimit, install_error_handlers
from visavis.server.key_asked import KEY_ASKED
from visavis.server.session_list import SessionList, end_session, list_sessions


def admin_routes(server: Server) -> APIRouter:
    """/metrics, and the live sessions: for callers whose key has the scope `admin`."""
    router = APIRouter(tags=["admin"])

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """The Prometheus text format; no key is needed, so keep the port inside."""
        return Response(server.metrics.render(), media_type="text/plain; version=0.0.4")

    @router.get("/v1/realtime/sessions", dependencies=KEY_ASKED)
    async def sessions(request: Request) -> SessionList:
        """The live sessions, and those that wait for a place or for their avatar."""
        server.caller(request, "admin")
        return {"object": "list", "data": list_sessions(server.desk, server.connections)}

    @router.delete("/v1/realtime/sessions/{session_id}", status_code=204, dependencies=KEY_ASKED)
    async def end(request: Request, session_id: str) -> None:
        """End a session with `session_ended` and close code 4403."""
        server.caller(request, "admin")
        await end_session(server.desk, server.connections, session_id)

    return router


def create_admin_app(server: Server) -> FastAPI:
    """The application of the administration's port; health is there, too."""
    app = FastAPI(title="visavis administration", docs_url=None, redoc_url=None, responses=REFUSALS)
    install_error_handlers(app)
    app.add_middleware(BodyLimit, limits={})
    if not server.auth.required and is_loopback(server.config.admin_host):
        app.add_middleware(HostGuard, allowed_origins=server.config.allowed_origins)
    app.include_router(health_routes(server))
    app.include_router(admin_routes(server))
    return app
