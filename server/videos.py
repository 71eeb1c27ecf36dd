"""Renderings over HTTP: a bounded queue, one at a time, behind the live sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections import Counter, deque
from collections.abc import Iterator

import structlog
from starlette.exceptions import HTTPException

from visavis.server.avatars import AvatarStore
from visavis.server.config import ServerConfig
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.principal import Principal
from visavis.server.replica import file_name
from visavis.server.video_folder import VideoFolder
from visavis.server.video_job import VideoJob, render_job

log = structlog.get_logger(__name__)

MAX_QUEUED = 8
RETRY_AFTER_S = 30.0
DRAINED = "the server is shutting down; ask again"


class VideoJobs:
    """All renderings of one server. Belongs to the event loop.

    Files lie under `data_dir/videos`, in a folder for each replica, and go with their jobs: a
    finished one when there are more than `max_videos`, and all when the server ends.
    """

    def __init__(
        self,
        config: ServerConfig,
        host: ModelHost,
        store: AvatarStore,
        metrics: Metrics,
        *,
        replica: str,
    ) -> None:
        """replica: what this process is called, for others may share `data_dir`."""
        self._metrics = metrics
        self._config = config
        self._host = host
        self._store = store
        self._folder = VideoFolder(config.data_dir / "videos", file_name(replica))
        self._jobs: dict[str, VideoJob] = {}
        self._queue: deque[VideoJob] = deque()
        self._wake = asyncio.Event()
        self._refusing = False
        self._working: asyncio.Task[None] | None = None
        self._current: VideoJob | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Begin to work."""
        self._folder.start()
        self._working = asyncio.create_task(self._work())

    def refuse(self) -> None:
        """Take no more; what waits has failed, what runs goes on."""
        self._refusing = True
        while self._queue:
            self._queue.popleft().fail(DRAINED)

    async def drain(self) -> None:
        """Wait for the running one, as long as a session may take to finish."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout_s):
                await self._idle.wait()

    def stop(self) -> None:
        """Give up what runs and what waits."""
        self.refuse()
        if self._current is not None:
            self._current.abandoned = True
        if self._working is not None:
            self._working.cancel()
        self._idle.set()

    async def close(self) -> None:
        """Remove all files; nothing is made any more."""
        self.stop()
        await self._folder.close()

    def check(self, caller: Principal) -> None:
        """Whether `caller` may have one more wait.

        Raises ProtocolError `server_draining`, `model_loading`, `capacity` or `quota_exceeded`.
        """
        if self._refusing:
            raise ProtocolError(ErrorCode.SERVER_DRAINING, DRAINED, retry_after_s=RETRY_AFTER_S)
        self._host.check_computes()
        if len(self._queue) >= MAX_QUEUED:
            raise ProtocolError(
                ErrorCode.CAPACITY,
                f"{MAX_QUEUED} videos wait already; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        waiting, share = (
            sum(job.owner == caller.name for job in self._queue),
            caller.max_queued_videos,
        )
        if share is not None and waiting >= share:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{waiting} videos of {caller.name!r} wait already, {share} at most; try again "
                "later, or raise its max_queued_videos",
                retry_after_s=RETRY_AFTER_S,
            )

    @contextlib.contextmanager
    def new_job(self, caller: Principal, owner: str | None, avatar_id: str) -> Iterator[VideoJob]:
        """A job whose recording is to be written into its folder; queued when the block ends.

        Raises ProtocolError as `check` does, or `avatar_not_found`.
        """
        self.check(caller)
        avatar = self._store.get(avatar_id, caller)
        video_id = f"video-{secrets.token_hex(8)}"
        job = VideoJob(
            id=video_id,
            owner=owner,
            avatar_id=avatar_id,
            folder=self._folder.path / video_id,
            consent=avatar.meta.consent,
        )
        job.folder.mkdir(parents=True)
        try:
            yield job
            self.check(caller)
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        self._forget_oldest()
        self._jobs[video_id] = job
        self._queue.append(job)
        self._wake.set()

    def list(self, caller: Principal) -> list[VideoJob]:
        """The caller's, oldest first."""
        return [job for job in self._jobs.values() if caller.may_see(job.owner)]

    def get(self, video_id: str, caller: Principal) -> VideoJob:
        """Raises HTTPException 404, also for somebody else's."""
        job = self._jobs.get(video_id)
        if job is None or not caller.may_see(job.owner):
            raise HTTPException(404, "there is no such video; POST /v1/videos makes one")
        return job

    def delete(self, video_id: str, caller: Principal) -> None:
        """Delete a video, or give it up. Raises HTTPException 404."""
        job = self.get(video_id, caller)
        del self._jobs[video_id]
        job.abandoned = True
        if job in self._queue:
            self._queue.remove(job)
        if job is not self._current:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _forget_oldest(self) -> None:
        """Make room for one: of those who have most, the oldest that is finished."""
        while len(self._jobs) >= self._config.max_videos:
            over = [job for job in self._jobs.values() if job.over]
            if not over:
                return
            owned = Counter(job.owner for job in self._jobs.values())
            oldest = max(over, key=lambda job: owned[job.owner])
            del self._jobs[oldest.id]
            shutil.rmtree(oldest.folder, ignore_errors=True)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            if not self._queue:
                await self._wake.wait()
                continue
            self._current = job = self._queue.popleft()
            self._idle.clear()
            try:
                await self._make(job)
            finally:
                self._current = None
                self._idle.set()

    async def _make(self, job: VideoJob) -> None:
        job.status = "in_progress"
        log.info("video begun", video=job.id)
        try:
            await render_job(
                job,
                self._host,
                model=self._config.model,
                watermark=self._config.watermark,
                max_s=self._config.max_video_s,
            )
        except asyncio.CancelledError:
            job.fail(DRAINED)
            raise
        except ValueError as error:
            job.fail(str(error).replace(str(job.speech), "the recording"))
        except Exception as error:
            log.error("video failed", video=job.id, exc_info=error)
            job.fail("the rendering failed inside the server; try again")
        else:
            job.status = "completed"
        if job.id not in self._jobs:
            shutil.rmtree(job.folder, ignore_errors=True)
        self._metrics.videos.labels(status=job.status).inc()
        log.info("video ended", video=job.id, status=job.status, frames=job.frames)
