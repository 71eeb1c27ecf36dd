"""Avatars over HTTP: list, upload, show, delete."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from typing_extensions import TypedDict

from visavis.server.avatars import StoredAvatar
from visavis.server.components import Server
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.forms import form_schema, read_form
from visavis.server.key_asked import KEY_ASKED

_UPLOAD = form_schema(
    "file",
    name={"type": "string", "maxLength": 200},
    consent={"type": "string", "enum": ["true", "false"]},
)


class AvatarJson(TypedDict):
    """An avatar as the API shows it."""

    id: str
    object: Literal["avatar"]
    name: str
    builtin: bool
    created_at: float
    warnings: list[str]
    credit: str | None
    consent: bool | None
    image_url: str


class AvatarList(TypedDict):
    """Built-in ones first."""

    object: Literal["list"]
    data: list[AvatarJson]


def avatar_routes(server: Server) -> APIRouter:
    """/v1/avatars. A caller sees built-in avatars, its own uploads and those that nobody owns."""
    router = APIRouter(tags=["avatars"], dependencies=KEY_ASKED)

    @router.get("/v1/avatars")
    async def list_avatars(request: Request) -> AvatarList:
        """Built-in ones first."""
        caller = server.caller(request)
        avatars = await asyncio.to_thread(server.store.list, caller)
        return {"object": "list", "data": [avatar_json(a) for a in avatars]}

    @router.post("/v1/avatars", status_code=201, openapi_extra=_UPLOAD)
    async def upload(request: Request) -> AvatarJson:
        """Make an avatar of a picture."""
        caller = server.caller(request, "avatars")
        limit = server.config.max_image_bytes
        async with read_form(request, "file") as form:
            consent = form.flag("consent")
            name = form.fields.get("name") or form.file.filename or ""
            data = await form.file.read(limit + 1)
        if server.config.require_consent and not consent:
            raise ProtocolError(
                ErrorCode.CONSENT_REQUIRED,
                "this server takes a portrait only with consent=true: the person shown has agreed",
                param="consent",
            )
        if len(data) > limit:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the picture has more than {limit:,} bytes; make it smaller and try again",
                param="file",
            )
        owner = caller.name if server.auth.required else None
        stored = await server.host.avatars.upload(
            name, data, owner=owner, share=caller.max_avatars, consent=consent
        )
        return avatar_json(stored)

    @router.get("/v1/avatars/{avatar_id}")
    async def get_avatar(request: Request, avatar_id: str) -> AvatarJson:
        """One avatar."""
        caller = server.caller(request)
        return avatar_json(await asyncio.to_thread(server.store.get, avatar_id, caller))

    @router.get(
        "/v1/avatars/{avatar_id}/image",
        response_class=FileResponse,
        openapi_extra={"security": [{}]},  # or none
    )
    async def get_image(request: Request, avatar_id: str) -> FileResponse:
        """The portrait. Built-in ones are public: an <img> cannot send a key."""
        avatar = await asyncio.to_thread(server.store.get, avatar_id)
        if not avatar.builtin:
            avatar = await asyncio.to_thread(server.store.get, avatar_id, server.caller(request))
        return FileResponse(avatar.portrait, headers={"X-Content-Type-Options": "nosniff"})

    @router.delete("/v1/avatars/{avatar_id}", status_code=204)
    async def delete_avatar(request: Request, avatar_id: str) -> None:
        """Delete an upload; sessions that show it go on."""
        caller = server.caller(request, "avatars")
        await asyncio.to_thread(server.store.get, avatar_id, caller)
        await server.host.avatars.delete(avatar_id)

    return router


def avatar_json(avatar: StoredAvatar) -> AvatarJson:
    """An avatar as the API shows it."""
    meta = avatar.meta
    return {
        "id": meta.id,
        "object": "avatar",
        "name": meta.name,
        "builtin": avatar.builtin,
        "created_at": meta.created_at,
        "warnings": meta.warnings,
        "credit": meta.credit,
        "consent": meta.consent,
        "image_url": f"/v1/avatars/{meta.id}/image",
    }
