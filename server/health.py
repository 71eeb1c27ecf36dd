"""Probes: has it started, does it live, should it get work."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from visavis.server.components import Server

_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
# What 200 and 503 say alike.
_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _STATUS}}}
    for status, text in ((200, "Yes"), (503, "No, or not yet"))
}


def health_routes(server: Server) -> APIRouter:
    """/health/{startup,live,ready}, also under /v1; no key is needed."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", responses=_ANSWERS)
    @router.get("/v1/health/live", include_in_schema=False)
    async def live() -> Response:
        """200 while the process can serve at all; never depends on loading."""
        failed = server.host.state == "failed"
        return JSONResponse(
            {"status": "failed" if failed else "ok", "error": server.host.load_error},
            status_code=503 if failed else 200,
        )

    @router.get("/health/ready", responses=_ANSWERS)
    @router.get("/v1/health/ready", include_in_schema=False)
    async def ready() -> Response:
        """200 once the model has made a chunk, until the server drains."""
        ok = server.host.state == "ready" and not server.draining
        status: str = "draining" if server.draining else server.host.state
        body = {"status": status}
        if server.host.interruption is not None:
            body["reason"] = server.host.interruption
        return JSONResponse(body, status_code=200 if ok else 503)

    @router.get("/health/startup", responses=_ANSWERS)
    @router.get("/v1/health/startup", include_in_schema=False)
    async def startup() -> Response:
        """200 once loading is over."""
        done = server.host.state in ("ready", "restarting")
        return JSONResponse({"status": server.host.state}, status_code=200 if done else 503)

    return router
