"""The package on bad lines and small servers: what was said is neither lost nor said twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cut_proxy import CutProxy, cut_proxy
from light_server import light_server
from package_page import open_package
from playwright.sync_api import Page
from wire_tap import WireTap

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RATE = 16_000
WITHIN_MS = 30_000
# `t` is what the tests look at: the session and what it told.
OPEN = """async (options) => {
  const { connect } = await import('/package/index.js');
  const url = `ws://${location.host}/v1/realtime/avatar`;
  const canvas = document.getElementById('face');
  const session = connect(
    { url, avatar: 'drawn', canvas, sampleRate: 16000, picture: 'jpeg', ...options });
  const t = { session, resumed: 0, finished: [], warnings: [], loud: new Set(), shown: 0 };
  window.t = t;
  session.on('status', (status) => {
    if (status.state === 'reconnecting') t.lost = true;
    if (status.state === 'live' && t.lost) {
      t.resumed += status.resumed ? 1 : 0;
      t.lost = false;
    }
  });
  session.on('finished', ({ status }) => t.finished.push(status));
  session.on('warning', ({ code }) => t.warnings.push(code));
  session.on('event', ({ type }) => { t[type] = (t[type] ?? 0) + 1; });
  session.on('shown', ({ speech }) => { t.shown += speech ? 1 : 0; });
  await session.ready;
  await session.unlock();
}"""
# Audio in which no two slices are alike.
SAY = """([seconds, pitch]) => window.t.session.sendAudio(Float32Array.from(
  { length: 16000 * seconds }, (_, i) => 0.3 * Math.sin(i / 20 + pitch * (i / 4000) ** 2)))"""


def until(page: Page, condition: str) -> None:
    """Wait for a condition on `t`."""
    page.wait_for_function(
        f"(() => {{ const t = window.t; return {condition}; }})()", timeout=WITHIN_MS, polling=50
    )


@pytest.fixture(autouse=True)
def leave(page: Page) -> Iterator[None]:
    """Free the place of the test's session, which would be held for the next ones to miss."""
    yield
    page.evaluate("window.t?.session.close()")


@pytest.fixture
def proxy(light_url: str) -> Iterator[CutProxy]:
    port = urlsplit(light_url).port
    assert port is not None
    with cut_proxy(port) as running:
        yield running


def test_speech_and_its_end_get_there_when_they_were_lost_on_the_way(
    page: Page, proxy: CutProxy
) -> None:
    tap = WireTap(page)
    open_package(page, proxy.url)
    page.evaluate(OPEN, {})
    assert page.evaluate(SAY, [1, 1])
    until(page, "t['response.created'] === 1")
    proxy.swallow()
    assert page.evaluate(SAY, [1, 2])
    proxy.cut(refuse=True)
    until(page, "t.lost")
    # While it is away, too.
    assert page.evaluate(SAY, [1, 3])
    page.evaluate("window.t.session.commit()")
    proxy.restore()
    until(page, "t.finished.length === 1")
    assert page.evaluate("[window.t.resumed, ...window.t.finished]") == [1, "completed"]
    assert page.evaluate("window.t.warnings") == []
    assert len(tap.said()) == 2 * 3 * RATE
    assert tap.spoken(1) == tap.said()
    assert tap.num_frames(1) == 75


def test_what_was_taken_before_a_loss_is_not_said_again(page: Page, proxy: CutProxy) -> None:
    tap = WireTap(page)
    open_package(page, proxy.url)
    page.evaluate(OPEN, {})
    page.evaluate(SAY, [2, 1])
    page.evaluate("window.t.session.commit()")
    until(page, "t.shown > 0")
    proxy.cut()
    until(page, "t.finished.length === 1")
    page.evaluate(SAY, [1, 2])
    page.evaluate("window.t.session.commit()")
    until(page, "t.finished.length === 2")
    assert page.evaluate("window.t.finished") == ["completed", "completed"]
    assert page.evaluate("[window.t.resumed, window.t.warnings.length]") == [1, 0]
    assert (tap.num_frames(1), tap.num_frames(2)) == (50, 25)
    assert tap.spoken(1) + tap.spoken(2) == tap.said()


def test_interruption_in_a_gap_is_carried_out(page: Page, proxy: CutProxy) -> None:
    open_package(page, proxy.url)
    page.evaluate(OPEN, {})
    page.evaluate(SAY, [8, 1])
    page.evaluate("window.t.session.commit()")
    until(page, "t.shown > 5")
    proxy.swallow()
    page.evaluate("window.t.session.cancel()")
    proxy.cut()
    until(page, "t.finished.length === 1")
    assert page.evaluate("window.t.finished") == ["cancelled"]
    assert page.evaluate("[window.t.resumed, window.t['output.cleared']]") == [1, 1]
    shown = page.evaluate("window.t.shown")
    page.evaluate(SAY, [1, 2])
    page.evaluate("window.t.session.commit()")
    until(page, "t.finished.length === 2")
    assert page.evaluate("window.t.finished[1]") == "completed"
    assert page.evaluate("window.t.shown") - shown <= 25


def test_audio_faster_than_the_server_takes_it_is_held_back(page: Page, tmp_path: Path) -> None:
    tap = WireTap(page)
    with light_server(tmp_path, max_buffered_input_ms=3_000) as url:
        open_package(page, url)
        page.evaluate(OPEN, {})
        assert page.evaluate(SAY, [7, 1])
        page.evaluate("window.t.session.commit()")
        until(page, "t.finished.length === 1")
        assert page.evaluate("[...window.t.finished, ...window.t.warnings]") == ["completed"]
        assert len(tap.said()) == 2 * 7 * RATE
        assert tap.spoken(1) == tap.said()


def test_line_that_is_too_long_is_refused_and_said(page: Page, light_url: str) -> None:
    open_package(page, light_url)
    page.evaluate(OPEN, {"maxHeldMs": 500})
    assert page.evaluate(SAY, [0.4, 1]) is True
    assert page.evaluate(SAY, [0.6, 1]) is False
    assert page.evaluate("window.t.warnings") == ["input_held_full"]


def test_loudspeakers_are_known_to_the_microphone(page: Page, light_url: str) -> None:
    open_package(page, light_url)
    page.evaluate(OPEN, {})
    assert page.evaluate("window.t.session.microphone.loudspeaking") is False
    page.evaluate(SAY, [1, 1])
    page.evaluate("window.t.session.commit()")
    until(page, "t.session.status.activity === 'speaking'")
    until(page, "t.session.microphone.loudspeaking")
    until(page, "t.finished.length === 1")
    until(page, "!t.session.microphone.loudspeaking")


def test_settings_are_chosen_and_changed(page: Page, light_url: str) -> None:
    tap = WireTap(page)
    open_package(page, light_url)
    page.evaluate(OPEN, {"fps": 12.5, "width": 128, "idle": "loop", "onDisconnect": "end"})
    settings = page.evaluate("window.t.session.status.settings")
    output = settings["output"]
    assert (output["fps"], output["width"], output["height"]) == (12.5, 128, 128)
    assert (settings["idle"], settings["on_disconnect"]) == ("loop", "end")
    page.evaluate("window.t.session.update({ idle: 'freeze', onDisconnect: 'hold' })")
    until(page, "t.session.status.settings.idle === 'freeze'")
    assert page.evaluate("window.t.session.status.settings.on_disconnect") == "hold"
    assert page.evaluate("window.t.session.server.limits.max_buffered_input_ms") > 0
    assert tap.num_events("session.created") == 1


def test_picture_can_be_brought_along(page: Page, light_url: str) -> None:
    open_package(page, light_url)
    page.evaluate(
        f"""async () => {{
          const image = await (await fetch('/v1/avatars/drawn/image')).blob();
          await ({OPEN})({{ avatar: undefined, image }});
        }}"""
    )
    assert page.evaluate("window.t.session.status.state") == "live"
    assert page.evaluate("window.t.session.avatar") is None


def active_sessions(page: Page, url: str) -> int:
    active: int = page.request.get(f"{url}/v1/realtime/capacity").json()["active"]
    return active


def test_page_that_is_left_frees_its_place_at_once(page: Page, tmp_path: Path) -> None:
    with light_server(tmp_path, resume_ttl_s=300) as url:
        open_package(page, url)
        page.evaluate(OPEN, {})
        assert active_sessions(page, url) == 1
        page.goto("about:blank")
        # A lost connection would be held for as long as that.
        deadline = time.monotonic() + 10
        while active_sessions(page, url) and time.monotonic() < deadline:
            page.wait_for_timeout(50)
        assert active_sessions(page, url) == 0
