"""Offline rendering over HTTP: ask, look how far it is, fetch the file."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from visavis.server.components import Server
from visavis.server.forms import form_schema, read_form
from visavis.server.key_asked import KEY_ASKED
from visavis.server.principal import Principal
from visavis.server.video_job import Status, VideoJob

MAX_SEED = 2**31 - 1
_PIECE = 1 << 20
_ASK = form_schema(
    "audio",
    avatar_id={"type": "string", "maxLength": 64, "required": True},
    seed={"type": "integer", "minimum": 0, "maximum": MAX_SEED},
)


class VideoError(TypedDict):
    """Why there is no video."""

    code: Literal["video_failed"]
    message: str


class VideoJson(TypedDict):
    """A rendering as the API shows it; `progress` in percent."""

    id: str
    object: Literal["video"]
    status: Status
    progress: int
    avatar_id: str
    seed: int
    frames: int
    created_at: float
    error: VideoError | None
    content_url: str | None


class VideoList(TypedDict):
    """The caller's, oldest first."""

    object: Literal["list"]
    data: list[VideoJson]


def video_routes(server: Server) -> APIRouter:
    """/v1/videos: for keys with the scope `videos`. A caller sees its own."""
    router = APIRouter(tags=["videos"], dependencies=KEY_ASKED)

    def caller_of(request: Request) -> Principal:
        return server.caller(request, "videos")

    @router.post("/v1/videos", status_code=202, openapi_extra=_ASK)
    async def create(request: Request) -> VideoJson:
        """Queue a rendering of a recording, spoken by an avatar."""
        caller = caller_of(request)
        server.videos.check(caller)
        async with read_form(request, "audio") as form:
            avatar_id = form.fields.get("avatar_id")
            if not avatar_id:
                raise HTTPException(422, "avatar_id: say which avatar speaks")
            seed = form.integer("seed", 0, MAX_SEED)
            owner = caller.name if server.auth.required else None
            with server.videos.new_job(caller, owner, avatar_id) as job:
                job.seed = seed
                await _store(form.file, job, server.config.max_upload_bytes)
        return video_json(job)

    @router.get("/v1/videos")
    async def list_videos(request: Request) -> VideoList:
        """The caller's, oldest first."""
        jobs = server.videos.list(caller_of(request))
        return {"object": "list", "data": [video_json(job) for job in jobs]}

    @router.get("/v1/videos/{video_id}")
    async def get_video(request: Request, video_id: str) -> VideoJson:
        """How far it is."""
        return video_json(server.videos.get(video_id, caller_of(request)))

    @router.get("/v1/videos/{video_id}/content", response_class=FileResponse)
    async def content(request: Request, video_id: str) -> FileResponse:
        """The MP4 file; 409 until it is there."""
        job = server.videos.get(video_id, caller_of(request))
        if job.status != "completed":
            raise HTTPException(409, f"the video is {job.status}; fetch it when it is completed")
        return FileResponse(job.video, media_type="video/mp4", filename=f"{job.id}.mp4")

    @router.delete("/v1/videos/{video_id}", status_code=204)
    async def delete(request: Request, video_id: str) -> None:
        """Delete it, or give it up."""
        server.videos.delete(video_id, caller_of(request))

    return router


def video_json(job: VideoJob) -> VideoJson:
    """A rendering as the API shows it."""
    return {
        "id": job.id,
        "object": "video",
        "status": job.status,
        "progress": job.progress,
        "avatar_id": job.avatar_id,
        "seed": job.seed,
        "frames": job.frames,
        "created_at": round(job.created_s, 3),
        "error": None if job.error is None else {"code": "video_failed", "message": job.error},
        "content_url": f"/v1/videos/{job.id}/content" if job.status == "completed" else None,
    }


async def _store(file: UploadFile, job: VideoJob, limit: int) -> None:
    total = 0
    with job.speech.open("wb") as target:
        while piece := await file.read(_PIECE):
            total += len(piece)
            if total > limit:
                raise HTTPException(413, f"the recording has more than {limit:,} bytes; cut it")
            await asyncio.to_thread(target.write, piece)
    if not total:
        raise HTTPException(422, "audio: the file is empty")
