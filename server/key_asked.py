"""Says of a route, in the OpenAPI document, that it asks for a key; the route itself asks."""

from __future__ import annotations

from fastapi import Depends
from fastapi.security import HTTPBearer

KEY_ASKED = (
    Depends(HTTPBearer(auto_error=False, description="An API key, where the server has any")),
)
