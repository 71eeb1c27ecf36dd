"""What runs here and whether there is room: models, capacity, the protocol's own document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request
from typing_extensions import TypedDict

from visavis.server.components import Server
from visavis.server.conversation import FPS
from visavis.server.key_asked import KEY_ASKED
from visavis.server.model_host import HostState
from visavis.server.schema.asyncapi import asyncapi_document


class ModelJson(TypedDict):
    """The model that is loaded, or will be."""

    id: str
    object: Literal["model"]
    owned_by: str
    state: HostState
    fps: int
    chunk_realtime_factor: float | None


class ModelList(TypedDict):
    """There is one."""

    object: Literal["list"]
    data: list[ModelJson]


class Capacity(TypedDict):
    """Sessions that there are, may be, and wait; `eta_s` is null when nobody can tell."""

    active: int
    max: int
    queue: int
    eta_s: float | None
    state: HostState | Literal["draining"]


def model_routes(server: Server) -> APIRouter:
    """GET /v1/models, /v1/realtime/capacity and /v1/asyncapi.json."""
    router = APIRouter(tags=["server"])
    # Made once: it takes milliseconds, and the caller is anybody.
    document = asyncapi_document(version("visavis"))

    @router.get("/v1/asyncapi.json")
    async def asyncapi() -> dict[str, object]:
        """The socket's events, errors and binary messages."""
        return document

    @router.get("/v1/models", dependencies=KEY_ASKED)
    async def models(request: Request) -> ModelList:
        """What is loaded."""
        server.caller(request)
        model: ModelJson = {
            "id": server.config.model,
            "object": "model",
            "owned_by": "visavis",
            "state": server.host.state,
            "fps": FPS,
            "chunk_realtime_factor": server.host.realtime_factor,
        }
        return {"object": "list", "data": [model]}

    @router.get("/v1/realtime/capacity")
    async def capacity() -> Capacity:
        """How many sessions there are and may be; no key is needed."""
        return {
            "active": server.admission.active,
            "max": server.host.max_sessions,
            "queue": server.admission.queued,
            "eta_s": server.admission.eta_s,
            "state": "draining" if server.draining else server.host.state,
        }

    return router
