"""Losing the server, and every state in which a session is not live."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cut_proxy import cut_proxy
from page_driver import POLL_MS, begin_to_speak, figures, open_page, speak_file, wait_until
from playwright.sync_api import Page, WebSocketRoute, expect
from wire_tap import WireTap

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SOCKET = "**/v1/realtime/avatar"
RECONNECT_MS = 20_000


def test_cut_connection_comes_back(page: Page, base_url: str, speech_wav: Path) -> None:
    """The session that the server holds goes on; the face talks on."""
    port = urlsplit(base_url).port
    assert port is not None
    with cut_proxy(port) as proxy:
        open_page(page, proxy.url)
        wait_until(page, "v.stats.framesShown > 10")
        proxy.cut(refuse=True)
        expect(page.locator("#state-text")).to_have_text("Reconnecting", timeout=RECONNECT_MS)
        expect(page.locator("#trouble")).to_be_visible()
        proxy.restore()
        wait_until(page, "v.state === 'idle'", RECONNECT_MS)
        expect(page.locator("#trouble")).to_be_hidden()
        after = figures(page)
        assert (after.sessions, after.resumed) == (1, 1)
        speak_file(page, speech_wav)


def test_cut_in_the_middle_of_a_word_loses_none_of_it(
    page: Page, base_url: str, speech_wav: Path
) -> None:
    tap = WireTap(page)
    port = urlsplit(base_url).port
    assert port is not None
    with cut_proxy(port) as proxy:
        open_page(page, proxy.url)
        begin_to_speak(page, speech_wav)
        proxy.cut()
        wait_until(page, "v.resumed === 1", RECONNECT_MS)
        wait_until(page, "v.utterances === 1")
        after = figures(page)
        assert (after.sessions, after.resumed) == (1, 1)
        assert tap.spoken(1) == tap.said()
        samples = len(tap.said()) // 2
        assert samples > 0
        assert tap.num_frames(1) == math.ceil(samples * 25 / tap.rate)
        speak_file(page, speech_wav)


def wait_for_speech(page: Page, tap: WireTap, seconds: float) -> None:
    """Wait until the page has said so much in all."""
    deadline = time.monotonic() + RECONNECT_MS / 1000
    while len(tap.said()) < 2 * tap.rate * seconds:
        assert time.monotonic() < deadline, "the page says nothing more"
        page.wait_for_timeout(POLL_MS)


def test_who_speaks_during_a_cut_is_heard_to_the_end(page: Page, light_url: str) -> None:
    tap = WireTap(page)
    port = urlsplit(light_url).port
    assert port is not None
    with cut_proxy(port) as proxy:
        open_page(page, proxy.url)
        page.keyboard.down("Space")
        wait_until(page, "v.state !== 'idle'")
        wait_for_speech(page, tap, 1.0)
        proxy.swallow()
        wait_for_speech(page, tap, 1.5)
        proxy.cut()
        wait_until(page, "v.resumed === 1", RECONNECT_MS)
        wait_for_speech(page, tap, 3.0)
        page.keyboard.up("Space")
        wait_until(page, "v.utterances === 1")
        after = figures(page)
        assert (after.sessions, after.resumed) == (1, 1)
        assert tap.spoken(1) == tap.said()


def events(page: Page, *messages: dict[str, Any], close: int | None = None) -> list[str]:
    """Serve the page's first session with these events and, if given, this close code.

    Returns a list that fills with the addresses of all its sockets.
    """
    urls: list[str] = []

    def on_socket(route: WebSocketRoute) -> None:
        urls.append(route.url)
        if len(urls) > 1:
            return

        def on_message(message: str | bytes) -> None:
            if not isinstance(message, str) or '"session.update"' not in message:
                return
            for event in messages:
                route.send(json.dumps({"event_id": "e", **event}))
            if close is not None:
                route.close(code=close)

        route.on_message(on_message)

    page.route_web_socket(SOCKET, on_socket)
    return urls


def error(kind: str, code: str, **fields: Any) -> dict[str, Any]:
    body = {"type": kind, "code": code, "message": f"the test says {code}", **fields}
    return {"type": "error", "error": body}


def test_waiting_in_line_shows_place_and_time(page: Page, base_url: str) -> None:
    events(page, {"type": "session.queued", "position": 3, "eta_s": 42})
    page.goto(base_url)
    expect(page.locator("#loading-text")).to_have_text("You are number 3 in line, about 50 seconds")
    expect(page.locator("#state-text")).to_have_text("Waiting")


def test_loading_shows_its_progress(page: Page, base_url: str) -> None:
    events(page, {"type": "session.loading", "stage": "avatar", "progress": 0.4})
    page.goto(base_url)
    expect(page.locator("#loading-text")).to_have_text("Preparing the portrait")
    assert page.locator("#loading-bar").evaluate("bar => bar.value") == pytest.approx(0.4)


REFUSALS = [
    (4404, "not_found_error", "avatar_not_found", "That portrait is gone", None),
    (4408, "capacity_error", "idle_timeout", "Still there?", "Wake it up"),
    (4410, "rate_limit_error", "max_duration", "Time is up", "Start again"),
    (4409, "permission_error", "taken_over", "Open in another window", "Use it here"),
    (4403, "permission_error", "origin_not_allowed", "This address may not use the server", None),
    (4429, "capacity_error", "capacity", "Every seat is taken", "Try now"),
    (4503, "capacity_error", "model_loading", "The model is still loading", "Try now"),
    (1011, "engine_error", "engine_failed", "The model stumbled", "Try now"),
    (1012, "server_error", "server_draining", "The server restarts", "Try now"),
]


@pytest.mark.parametrize(("close", "kind", "code", "title", "action"), REFUSALS)
def test_refusal_is_explained_with_a_way_out(
    page: Page, base_url: str, close: int, kind: str, code: str, title: str, action: str | None
) -> None:
    events(page, error(kind, code, retry_after_s=60), close=close)
    page.goto(base_url)
    trouble = page.get_by_role("alert").filter(has_text=title)
    trouble.wait_for()
    assert len(page.locator("#trouble-remedy").inner_text()) > 15
    button = page.locator("#trouble-action")
    if action is None:
        expect(button).to_be_hidden()
    else:
        expect(button).to_have_text(action)


def test_server_with_keys_asks_for_one(page: Page, base_url: str) -> None:
    urls = events(page, error("authentication_error", "missing_token"), close=4401)
    page.goto(base_url)
    page.get_by_label("Access key").fill("secret-key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#state-text")).to_have_text("Connecting")
    # The key goes into the handshake, never into an address.
    assert len(urls) == 2
    assert "secret-key" not in urls[1]
    assert page.evaluate("sessionStorage.getItem('visavis-access-key')") == "secret-key"


def test_end_of_the_session_is_announced(page: Page, base_url: str) -> None:
    def announce(route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def on_message(message: str | bytes) -> None:
            route.send(message)
            if isinstance(message, str) and '"session.updated"' in message:
                expiring = {"type": "session.expiring", "reason": "max_duration", "deadline_s": 60}
                route.send(json.dumps({"event_id": "e", **expiring}))

        server.on_message(on_message)

    page.route_web_socket(SOCKET, announce)
    open_page(page, base_url)
    page.get_by_role("status").filter(has_text="ends in 60 seconds").wait_for()


def test_lost_server_is_reported_with_a_remedy(page: Page, base_url: str) -> None:
    page.route("**/v1/avatars", lambda route: route.abort())
    page.goto(base_url)
    page.get_by_text("The server does not answer").wait_for()
    page.unroute("**/v1/avatars")
    page.get_by_role("button", name="Try again").click()
    wait_until(page, "v.state === 'idle'")
    assert page.locator("#trouble").is_hidden()


def test_empty_gallery_invites_a_photo(page: Page, base_url: str) -> None:
    page.route("**/v1/avatars", lambda route: route.fulfill(json={"object": "list", "data": []}))
    page.goto(base_url)
    page.get_by_text("No portrait yet").first.wait_for()
    expect(page.get_by_role("button", name="Add a photo")).to_be_visible()
