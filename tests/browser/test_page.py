"""The page in a real Chromium against a real server: what a visitor would notice."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SPEECH_S = 4.0
FPS = 25
MIN_SHOWN_SHARE = 0.95
MAX_SKEW_P95_MS = 80.0
READY_MS = 60_000
# Chromium polls conditions at every repaint by default, and a busy machine has few of those.
POLL_MS = 50
UTTERANCE_MS = 60_000
STOP_MS = 1_000


def wait_until(page: Page, condition: str, timeout_ms: int = READY_MS) -> None:
    """Wait for a condition on `v`, the page's own figures."""
    page.wait_for_function(
        f"(() => {{ const v = window.__visavis; return v && ({condition}); }})()",
        timeout=timeout_ms,
        polling=POLL_MS,
    )


def open_page(page: Page, url: str) -> None:
    page.goto(url)
    wait_until(page, "v.state === 'idle'")


def metrics(page: Page) -> dict[str, Any]:
    figures: dict[str, Any] = page.evaluate(
        """() => {
          const v = window.__visavis;
          return {
            state: v.state, video: v.video, lastError: v.lastError, utterances: v.utterances,
            received: v.framesReceived, shown: v.framesShown, dropped: v.framesDropped,
            queued: v.framesQueued, skews: [...v.skews], firstFrameMs: v.firstFrameMs,
          };
        }"""
    )
    return figures


def speak_file(page: Page, wav: Path) -> None:
    """Give the page a recording and wait until its last frame was shown."""
    before = metrics(page)["utterances"]
    page.set_input_files("#audio-input", wav)
    wait_until(page, f"v.utterances > {before}", UTTERANCE_MS)


def assert_in_step(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Nearly every frame that was sent was shown, and each close to its sound."""
    shown = after["shown"] - before["shown"]
    dropped = after["dropped"] - before["dropped"]
    assert shown >= MIN_SHOWN_SHARE * (shown + dropped)
    assert len(after["skews"]) >= MIN_SHOWN_SHARE * SPEECH_S * FPS
    assert np.percentile(np.abs(after["skews"]), 95) <= MAX_SKEW_P95_MS


def a_photo(base_url: str, folder: Path) -> Path:
    """A mirrored copy of the gallery's first portrait, as a stranger's PNG."""
    with urllib.request.urlopen(f"{base_url}/v1/avatars") as response:
        first = json.load(response)["data"][0]
    with urllib.request.urlopen(base_url + first["image_url"]) as response:
        mirrored = ImageOps.mirror(Image.open(response).convert("RGB"))
    path = folder / "my_own-photo.png"
    mirrored.save(path)
    return path


def test_page_opens_with_a_live_face(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    wait_until(page, "v.framesShown > 50")
    assert page.locator(".tile[aria-pressed='true']").count() == 1
    assert page.locator("#portrait.is-live").count() == 1
    assert metrics(page)["lastError"] is None


def test_portrait_talks_in_step(page: Page, base_url: str, speech_wav: Path) -> None:
    open_page(page, base_url)
    before = metrics(page)
    speak_file(page, speech_wav)
    after = metrics(page)
    assert_in_step(before, after)
    assert after["video"] == "h264"
    assert after["firstFrameMs"] > 0
    wait_until(page, "v.state === 'idle'")


def test_jpeg_fallback_talks_in_step(page: Page, base_url: str, speech_wav: Path) -> None:
    page.add_init_script("delete globalThis.VideoDecoder")
    open_page(page, base_url)
    before = metrics(page)
    speak_file(page, speech_wav)
    assert metrics(page)["video"] == "jpeg"
    assert_in_step(before, metrics(page))


def test_stop_ends_speech_at_once(page: Page, base_url: str, speech_wav: Path) -> None:
    open_page(page, base_url)
    page.set_input_files("#audio-input", speech_wav)
    wait_until(page, "v.state === 'speaking'")
    page.keyboard.press("Escape")
    wait_until(page, "v.state === 'idle'", STOP_MS)
    shown = metrics(page)["shown"]
    wait_until(page, f"v.framesShown > {shown + 10}")
    assert page.get_by_role("button", name="Stop", exact=True).is_disabled()


def test_push_to_talk_through_the_microphone(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    page.locator("#mic").hover()
    page.mouse.down()
    wait_until(page, "v.state === 'speaking'")
    page.mouse.up()
    wait_until(page, "v.utterances === 1", UTTERANCE_MS)
    assert metrics(page)["lastError"] is None


def test_uploaded_portrait_comes_alive_and_can_be_deleted(
    page: Page, base_url: str, tmp_path: Path
) -> None:
    open_page(page, base_url)
    page.set_input_files("#photo-input", a_photo(base_url, tmp_path))
    own = page.get_by_role("button", name="my own photo", exact=True)
    own.wait_for(timeout=READY_MS)
    wait_until(page, "v.state === 'idle'")
    shown = metrics(page)["shown"]
    wait_until(page, f"v.framesShown > {shown + 20}")
    assert own.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Delete my own photo").click()
    own.wait_for(state="detached", timeout=READY_MS)


def test_picture_without_a_face_is_refused_in_plain_words(
    page: Page, base_url: str, tmp_path: Path
) -> None:
    open_page(page, base_url)
    portraits = page.locator(".tile").count()
    ramp = np.linspace(0, 255, 400, dtype=np.uint8)
    Image.fromarray(np.tile(ramp, (400, 1))).save(tmp_path / "wall.png")
    page.set_input_files("#photo-input", tmp_path / "wall.png")
    alert = page.get_by_role("alert").filter(has_text="face")
    alert.wait_for(timeout=READY_MS)
    assert page.locator(".tile").count() == portraits
    assert metrics(page)["state"] == "idle"


def test_lost_server_is_reported_with_a_remedy(page: Page, base_url: str) -> None:
    page.route("**/v1/avatars", lambda route: route.abort())
    page.goto(base_url)
    page.get_by_text("The server does not answer").wait_for(timeout=READY_MS)
    page.unroute("**/v1/avatars")
    page.get_by_role("button", name="Try again").click()
    wait_until(page, "v.state === 'idle'")
    assert page.locator("#trouble").is_hidden()


def test_every_control_has_a_name(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input')]
             .filter((e) => e.checkVisibility() && !e.textContent.trim()
                            && !e.getAttribute('aria-label') && !e.labels?.[0]?.textContent.trim())
             .map((e) => e.outerHTML)"""
    )
    assert nameless == []


def test_phone_width_needs_no_sideways_scrolling(page: Page, base_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, base_url)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
