"""uvicorn, with the settings that sockets need and a shutdown that lets sessions finish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import webbrowser
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from visavis.server.admin import create_admin_app
from visavis.server.app import Server, create_app
from visavis.server.config import ServerConfig, is_loopback
from visavis.server.memory_trim import settle

log = structlog.get_logger(__name__)

TOLD_WITHIN_S = 3.0


class DrainingServer(uvicorn.Server):
    """Lets live sessions finish on the first SIGTERM or SIGINT, ends them on the second.

    uvicorn itself closes every WebSocket at once. Readiness goes first; `drain_notice_s` later,
    when load balancers have looked away, sessions are told and nobody is admitted any more.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server: Server,
        *,
        open_page: bool = False,
        own_process: bool = False,
    ) -> None:
        """own_process: nothing else of importance lives in this one, before the model or after."""
        super().__init__(config)
        self.failure: str | None = None
        self._server = server
        self._open_page = open_page
        self._own_process = own_process
        self._watching: asyncio.Task[None] | None = None
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry = asyncio.Event()
        self._signals = 0
        self._admin: _AdminServer | None = None
        self._administering: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Remember the loop: signals arrive outside of it. The administration's port opens, too."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        self._watching = asyncio.create_task(self._watch_loading())
        config = self._server.config
        if config.admin_port is not None:
            self._admin = _AdminServer(
                uvicorn.Config(
                    create_admin_app(self._server),
                    host=config.admin_host,
                    port=config.admin_port,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                )
            )
            self._administering = asyncio.create_task(self._admin.serve())

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """The administration's port is the last to close: it tells how far the drain is."""
        await super().shutdown(sockets)  # type: ignore[arg-type]
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._admin is not None and self._administering is not None:
            self._admin.should_exit = True
            await asyncio.gather(self._administering, return_exceptions=True)
        if self._own_process:
            # Libraries count at exit what nobody freed.
            gc.unfreeze()

    @property
    def admin_port(self) -> int | None:
        """The administration's port once it is open."""
        servers = self._admin.servers if self._admin is not None and self._admin.started else []
        return next((s.getsockname()[1] for a in servers for s in a.sockets), None)

    @property
    def engine_busy(self) -> bool:
        """Whether the engine thread outlived the server, in the middle of a long piece of work."""
        return self._server.host.worker.busy

    async def _watch_loading(self) -> None:
        """Say where the page is once it can be used, or stop when the model cannot be loaded."""
        await self._server.host.wait_loaded()
        if self._server.host.load_error is not None:
            self.failure = self._server.host.load_error
            self.should_exit = True
            return
        if self._own_process:
            settle()
        host = self.config.host
        port = next((s.getsockname()[1] for a in self.servers for s in a.sockets), self.config.port)
        page = f"http://{'localhost' if host in ('0.0.0.0', '::', '127.0.0.1') else host}:{port}/"
        log.info("serving", page=page, keys=len(self._server.auth.keys), admin=self.admin_port)
        if not self._server.auth.required and not is_loopback(host):
            log.warning(
                "anybody who reaches this address may use the server and delete its avatars: "
                "--no-auth"
            )
        if self._open_page:
            await asyncio.to_thread(webbrowser.open, page)
        await self._server.host.failed.wait()
        self.failure = self._server.host.load_error
        self._server.leaving = True
        with contextlib.suppress(TimeoutError):
            # Sessions have heard why by then.
            async with asyncio.timeout(TOLD_WITHIN_S):
                await self._server.admission.wait_empty()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, hurry, or leave at once: the first, second and third signal."""
        self._signals += 1
        if self._loop is None or self._signals > 2:
            super().handle_exit(signal.SIGINT if self.should_exit else sig, frame)
        elif self._signals == 1:
            self._loop.call_soon_threadsafe(self.begin_drain)
        else:
            self._loop.call_soon_threadsafe(self.hurry)

    def begin_drain(self) -> None:
        """Drain, then stop. On the event loop; a second call does nothing."""
        if self._drain is None:
            self._server.leaving = True
            self._drain = asyncio.create_task(self._drain_and_stop())

    def hurry(self) -> None:
        """End what is still there now; clients are told all the same."""
        log.info("hurrying", sessions=self._server.admission.active)
        self._hurry.set()
        self._server.hurry()

    async def _drain_and_stop(self) -> None:
        config = self._server.config
        log.info(
            "draining",
            sessions=self._server.admission.active,
            notice_s=config.drain_notice_s,
            timeout_s=config.drain_timeout_s,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(config.drain_notice_s):
                await self._hurry.wait()
        try:
            draining = asyncio.create_task(self._server.drain())
            if self._hurry.is_set():
                await asyncio.sleep(0)
                self._server.hurry()
            await draining
        finally:
            self.should_exit = True


class _AdminServer(uvicorn.Server):
    """A second server on the same event loop; signals are the first one's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the handlers as they are."""
        yield


def uvicorn_config(app: FastAPI, config: ServerConfig) -> uvicorn.Config:
    """Settings for live media."""
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        ws="websockets-sansio",
        # Twice the protocol's limit: between the two an error event explains the close.
        ws_max_size=2 * config.max_message_bytes,
        # Compressed video does not deflate; trying costs a hundred times the CPU of sending.
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def make_server(config: ServerConfig, *, open_page: bool = False) -> DrainingServer:
    """A server that `run()` or `serve()` starts; with `open_page` a browser opens when ready."""
    app = create_app(config)
    return DrainingServer(
        uvicorn_config(app, config), app.state.server, open_page=open_page, own_process=True
    )
