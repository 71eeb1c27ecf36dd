"""uvicorn, with the settings that sockets need and a shutdown that lets sessions finish."""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from visavis.server.app import Server, create_app
from visavis.server.config import ServerConfig

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT live sessions finish, on the second everything stops.

    uvicorn itself closes every WebSocket at once.
    """

    def __init__(self, config: uvicorn.Config, server: Server, *, open_page: bool = False) -> None:
        super().__init__(config)
        self.failure: str | None = None
        self._server = server
        self._open_page = open_page
        self._watching: asyncio.Task[None] | None = None
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Remember the loop: signals arrive outside of it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        self._watching = asyncio.create_task(self._watch_loading())

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
        host = self.config.host
        port = next((s.getsockname()[1] for a in self.servers for s in a.sockets), self.config.port)
        page = f"http://{'localhost' if host in ('0.0.0.0', '::', '127.0.0.1') else host}:{port}/"
        log.info("serving", page=page)
        if self._open_page:
            await asyncio.to_thread(webbrowser.open, page)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; called by the signal handler."""
        if self._loop is None or self._drain is not None:
            super().handle_exit(signal.SIGINT if self.should_exit else sig, frame)
            return
        self._loop.call_soon_threadsafe(self.begin_drain)

    def begin_drain(self) -> None:
        """Drain, then stop. On the event loop; a second call does nothing."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_and_stop())

    async def _drain_and_stop(self) -> None:
        log.info("draining", sessions=self._server.admission.active)
        await self._server.drain()
        self.should_exit = True


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
    return DrainingServer(uvicorn_config(app, config), app.state.server, open_page=open_page)
