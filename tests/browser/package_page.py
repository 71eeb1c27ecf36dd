"""A page on which nothing runs but the published package."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

PACKAGE = Path(__file__).resolve().parents[2] / "clients/web/build"


def open_package(page: Page, base_url: str) -> Page:
    """Open an empty page of the server's origin with a canvas `face`, from which
    `/package/index.js` can be imported."""
    if not (PACKAGE / "index.js").is_file():
        pytest.fail("the package is not built: run `npm run build` in clients/web")

    def serve(route: Route) -> None:
        route.fulfill(path=PACKAGE / route.request.url.split("/package/")[1])

    page.route("**/package/**", serve)
    # A document of the server's own: Chromium keeps made-up ones from sockets of this machine.
    page.goto(f"{base_url}/health/live")
    page.evaluate("document.body.innerHTML = '<canvas id=\\'face\\'></canvas>'")
    return page
