"""FastAPI routes, lifespan and wiring; no logic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI, File, Form, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import start_http_server

from visavis.server.admission import Admission
from visavis.server.avatars import AvatarStore, StoredAvatar
from visavis.server.config import ServerConfig
from visavis.server.conversation import FPS
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics, Stopwatch
from visavis.server.model_host import EngineLoader, ModelHost, load_engine
from visavis.server.outbound import Outbound
from visavis.server.protocol import SUBPROTOCOL
from visavis.server.schema.asyncapi import asyncapi_document
from visavis.server.session import RealtimeSession

log = structlog.get_logger(__name__)

_NO_PAGE = """<!doctype html><meta charset="utf-8"><title>visavis</title>
<style>body{font:16px/1.5 system-ui;max-width:40em;margin:15vh auto;padding:0 1em}</style>
<h1>visavis is running</h1>
<p>The web page is not built yet. Build it with</p>
<pre>cd clients/web &amp;&amp; npm ci &amp;&amp; npm run build</pre>
<p>and reload. The API is here already: <a href="/v1/avatars">/v1/avatars</a>,
<a href="/v1/models">/v1/models</a>, <a href="/docs">/docs</a>.</p>
"""


class Server:
    """Everything that one application owns; `app.state.server`."""

    def __init__(self, config: ServerConfig, load: EngineLoader) -> None:
        self.config = config
        self.metrics = Metrics()
        self.store = AvatarStore(config.data_dir / "avatars", config.gallery)
        self.host = ModelHost(config, self.metrics, self.store, load)
        self.admission = Admission(self.host, self.metrics)
        self.metrics.build.info({"version": version("visavis"), "model": config.model})

    async def drain(self) -> None:
        """Let live sessions finish; the caller stops the server afterwards."""
        await self.admission.drain(self.config.drain_timeout_s)


def create_app(config: ServerConfig, *, load: EngineLoader = load_engine) -> FastAPI:
    """The application. `load` makes the engine, on the engine thread, after start-up."""
    server = Server(config, load)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.host.start()
        metrics_server = None
        if config.metrics_port is not None:
            metrics_server, _thread = start_http_server(
                config.metrics_port, addr=config.host, registry=server.metrics.registry
            )
        try:
            yield
        finally:
            if metrics_server is not None:
                metrics_server.shutdown()
                metrics_server.server_close()
            await server.host.stop()

    app = FastAPI(title="visavis", version=version("visavis"), lifespan=lifespan)
    app.state.server = server
    app.add_exception_handler(ProtocolError, _http_error)
    _add_health(app, server)
    _add_avatars(app, server)
    _add_realtime(app, server)
    _add_page(app, server)
    return app


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProtocolError)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    body = {
        "type": error.spec.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "retryable": error.spec.retryable,
    }
    return JSONResponse({"error": body}, status_code=error.spec.http, headers=headers)


def _add_health(app: FastAPI, server: Server) -> None:
    @app.get("/health/live")
    @app.get("/v1/health/live")
    async def live() -> Response:
        """200 while the process can serve at all; never depends on loading."""
        failed = server.host.state == "failed"
        return JSONResponse(
            {"status": "failed" if failed else "ok", "error": server.host.load_error},
            status_code=503 if failed else 200,
        )

    @app.get("/health/ready")
    @app.get("/v1/health/ready")
    async def ready() -> Response:
        """200 once the model has made a chunk, until the server drains."""
        ok = server.host.state == "ready" and not server.admission.draining
        status = "draining" if server.admission.draining else server.host.state
        return JSONResponse({"status": status}, status_code=200 if ok else 503)

    @app.get("/health/startup")
    @app.get("/v1/health/startup")
    async def startup() -> Response:
        """200 once loading is over."""
        done = server.host.state == "ready"
        return JSONResponse({"status": server.host.state}, status_code=200 if done else 503)

    if server.config.metrics_port is None:

        @app.get("/metrics")
        async def metrics() -> Response:
            return Response(server.metrics.render(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        model = {
            "id": server.config.model,
            "object": "model",
            "owned_by": "visavis",
            "state": server.host.state,
            "fps": FPS,
            "chunk_realtime_factor": server.host.realtime_factor,
        }
        return {"object": "list", "data": [model]}

    @app.get("/v1/asyncapi.json")
    async def asyncapi() -> dict[str, object]:
        """The socket's events, errors and binary messages."""
        return asyncapi_document(version("visavis"))

    @app.get("/v1/realtime/capacity")
    async def capacity() -> dict[str, object]:
        return {
            "active": server.admission.active,
            "max": server.host.max_sessions,
            "queue": 0,
            "eta_s": None,
            "state": "draining" if server.admission.draining else server.host.state,
        }


def _add_avatars(app: FastAPI, server: Server) -> None:
    @app.get("/v1/avatars")
    def list_avatars() -> dict[str, object]:
        return {"object": "list", "data": [_avatar(a) for a in server.store.list()]}

    @app.post("/v1/avatars", status_code=201)
    async def upload(file: UploadFile = File(), name: str = Form("")) -> dict[str, object]:  # noqa: B008
        limit = server.config.max_image_bytes
        data = await file.read(limit + 1)
        if len(data) > limit:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the picture has more than {limit:,} bytes; make it smaller and try again",
                param="file",
            )
        return _avatar(await server.host.upload(name or file.filename or "", data))

    @app.get("/v1/avatars/{avatar_id}")
    def get_avatar(avatar_id: str) -> dict[str, object]:
        return _avatar(server.store.get(avatar_id))

    @app.get("/v1/avatars/{avatar_id}/image")
    def get_image(avatar_id: str) -> FileResponse:
        return FileResponse(server.store.get(avatar_id).portrait)

    @app.delete("/v1/avatars/{avatar_id}", status_code=204)
    async def delete_avatar(avatar_id: str) -> None:
        await server.host.delete(avatar_id)


def _avatar(avatar: StoredAvatar) -> dict[str, object]:
    meta = avatar.meta
    return {
        "id": meta.id,
        "object": "avatar",
        "name": meta.name,
        "builtin": avatar.builtin,
        "created_at": meta.created_at,
        "warnings": meta.warnings,
        "credit": meta.credit,
        "image_url": f"/v1/avatars/{meta.id}/image",
    }


def _add_realtime(app: FastAPI, server: Server) -> None:
    @app.websocket("/v1/realtime/avatar")
    async def realtime(socket: WebSocket) -> None:
        offered = socket.scope.get("subprotocols", [])
        # Browsers cannot read a refused handshake, so it is accepted first and closed after.
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        session = RealtimeSession(
            socket,
            host=server.host,
            admission=server.admission,
            config=server.config,
            metrics=server.metrics,
        )
        structlog.contextvars.bind_contextvars(session_id=session.id)
        try:
            _check_origin(socket, server.config)
            with server.admission.place(session):
                await _run(session, server.metrics)
        except ProtocolError as error:
            out = Outbound(socket, server.config, server.metrics, server.admission)
            out.error(error)
            out.close(error.spec.close or 1011, error.code)
            await out.run(lambda now_s: None)


async def _run(session: RealtimeSession, metrics: Metrics) -> None:
    watch = Stopwatch()
    log.info("session opened")
    reason = "failed"
    try:
        reason = await session.run()
    finally:
        metrics.sessions.labels(end_reason=reason).inc()
        metrics.session_duration.observe(watch.elapsed_s())
        log.info("session ended", reason=reason, seconds=round(watch.elapsed_s(), 1))


def _check_origin(socket: WebSocket, config: ServerConfig) -> None:
    origin = socket.headers.get("origin")
    if origin is not None and config.allowed_origins and origin not in config.allowed_origins:
        raise ProtocolError(
            ErrorCode.ORIGIN_NOT_ALLOWED, "this page's origin is not in VISAVIS_ALLOWED_ORIGINS"
        )


def _add_page(app: FastAPI, server: Server) -> None:
    if (server.config.web_dir / "index.html").is_file():
        app.mount("/", StaticFiles(directory=server.config.web_dir, html=True), name="page")
        return

    @app.get("/", response_class=HTMLResponse)
    async def no_page() -> str:
        return _NO_PAGE
