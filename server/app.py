"""The application: lifespan, middleware and routes; no logic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from visavis.server.admin import admin_routes
from visavis.server.avatar_routes import avatar_routes
from visavis.server.components import Server
from visavis.server.config import ServerConfig
from visavis.server.health import health_routes
from visavis.server.host_guard import HostGuard
from visavis.server.http_errors import (
    FORM_OVERHEAD_BYTES,
    REFUSALS,
    BodyLimit,
    install_error_handlers,
)
from visavis.server.model_host import EngineLoader, load_engine
from visavis.server.model_routes import model_routes
from visavis.server.realtime_routes import realtime_routes
from visavis.server.video_routes import video_routes

_NO_PAGE = """<!doctype html><meta charset="utf-8"><title>visavis</title>
<style>body{font:16px/1.5 system-ui;max-width:40em;margin:15vh auto;padding:0 1em}</style>
<h1>visavis is running</h1>
<p>The web page is not built yet. Build it with</p>
<pre>cd clients/web &amp;&amp; npm ci &amp;&amp; npm run build</pre>
<p>and reload. The API is here already: <a href="/v1/avatars">/v1/avatars</a>,
<a href="/v1/models">/v1/models</a>, <a href="/docs">/docs</a>.</p>
"""


def create_app(config: ServerConfig, *, load: EngineLoader = load_engine) -> FastAPI:
    """The application. `load` makes the engine, on the engine thread, after start-up."""
    server = Server(config, load)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.host.start()
        server.videos.start()
        try:
            yield
        finally:
            server.videos.stop()
            await server.images.close()
            await server.desk.close()
            await server.host.stop()
            await server.videos.close()
            server.tracing.shutdown()

    app = FastAPI(
        title="visavis", version=version("visavis"), lifespan=lifespan, responses=REFUSALS
    )
    app.state.server = server
    install_error_handlers(app)
    _add_middleware(app, server)
    app.include_router(health_routes(server))
    app.include_router(model_routes(server))
    app.include_router(avatar_routes(server))
    app.include_router(realtime_routes(server))
    app.include_router(video_routes(server))
    if server.admin_on_main_port:
        app.include_router(admin_routes(server))
    _add_page(app, config)
    return app


def _add_middleware(app: FastAPI, server: Server) -> None:
    config = server.config
    limits = {
        "/v1/avatars": config.max_image_bytes + FORM_OVERHEAD_BYTES,
        "/v1/videos": config.max_upload_bytes + FORM_OVERHEAD_BYTES,
    }
    app.add_middleware(BodyLimit, limits=limits)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.allowed_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    if server.auth.local_names_only:
        app.add_middleware(HostGuard, allowed_origins=config.allowed_origins)


def _add_page(app: FastAPI, config: ServerConfig) -> None:
    if (config.web_dir / "index.html").is_file():
        app.mount("/", StaticFiles(directory=config.web_dir, html=True), name="page")
        return

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def no_page() -> str:
        return _NO_PAGE


__all__ = ["Server", "create_app"]
