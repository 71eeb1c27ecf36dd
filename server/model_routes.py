"""What runs here and whether there is room: models, capacity, the protocol's own document."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request

from visavis.server.components import Server
from visavis.server.conversation import FPS
from visavis.server.schema.asyncapi import asyncapi_document


def model_routes(server: Server) -> APIRouter:
    """GET /v1/models, /v1/realtime/capacity and /v1/asyncapi.json."""
    router = APIRouter(tags=["server"])
    # Made once: it takes milliseconds, and the caller is anybody.
    document = asyncapi_document(version("visavis"))

    @router.get("/v1/asyncapi.json")
    async def asyncapi() -> dict[str, object]:
        """The socket's events, errors and binary messages."""
        return document

    @router.get("/v1/models")
    async def models(request: Request) -> dict[str, object]:
        """What is loaded."""
        server.caller(request)
        model = {
            "id": server.config.model,
            "object": "model",
            "owned_by": "visavis",
            "state": server.host.state,
            "fps": FPS,
            "chunk_realtime_factor": server.host.realtime_factor,
        }
        return {"object": "list", "data": [model]}

    @router.get("/v1/realtime/capacity")
    async def capacity() -> dict[str, object]:
        """How many sessions there are and may be; no key is needed."""
        return {
            "active": server.admission.active,
            "max": server.host.max_sessions,
            "queue": server.admission.queued,
            "eta_s": server.admission.eta_s,
            "state": "draining" if server.draining else server.host.state,
        }

    return router
