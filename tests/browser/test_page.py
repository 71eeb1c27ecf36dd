"""The page in a real Chromium against a real server: what a visitor would notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_driver import READY_MS, UTTERANCE_MS, figures, open_page, wait_until
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_page_opens_with_a_live_face(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    wait_until(page, "v.stats.framesShown > 50")
    assert page.locator(".tile[aria-pressed='true']").count() == 1
    assert page.locator("#portrait.is-live").count() == 1
    assert figures(page).last_error is None


def test_another_portrait_is_one_click_away(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    page.locator(".tile[aria-pressed='false']").first.click()
    wait_until(page, "v.sessions === 2 && v.state === 'idle'")
    shown = figures(page).shown
    wait_until(page, f"v.stats.framesShown > {shown + 20}")


def test_larger_pictures_are_one_choice_away(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    choice, canvas = page.get_by_label("Size of the picture"), page.locator("#portrait canvas")
    expect(choice.locator("option")).to_have_text(["256 × 256", "384 × 384", "512 × 512"])
    expect(canvas).to_have_js_property("width", 256)
    choice.select_option("384 × 384")
    wait_until(page, "v.sessions === 2 && v.state === 'idle'")
    expect(canvas).to_have_js_property("width", 384)
    expect(choice).to_have_js_property("selectedIndex", 1)
    # A file of pictures that grow half way is one that players refuse.
    page.get_by_role("button", name="Record a video").click()
    page.get_by_role("button", name="Stop recording").wait_for()
    choice.select_option("512 × 512")
    page.get_by_role("alert").filter(has_text="A video has one size").wait_for()
    expect(choice).to_have_js_property("selectedIndex", 1)
    assert figures(page).sessions == 2


def test_the_address_may_say_the_size(page: Page, base_url: str) -> None:
    open_page(page, f"{base_url}?size=512")
    expect(page.locator("#portrait canvas")).to_have_js_property("width", 512)
    expect(page.get_by_label("Size of the picture")).to_have_js_property("selectedIndex", 2)


def test_push_to_talk_through_the_microphone(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    page.locator("#mic").hover()
    page.mouse.down()
    wait_until(page, "v.state === 'speaking'")
    page.mouse.up()
    wait_until(page, "v.utterances === 1", UTTERANCE_MS)
    assert figures(page).last_error is None


def test_open_microphone_hears_when_somebody_speaks(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    page.get_by_label("Open mic").check()
    page.get_by_role("button", name="Open the microphone").click()
    wait_until(page, "v.state === 'speaking'", UTTERANCE_MS)
    page.get_by_role("button", name="Close the microphone").click()
    wait_until(page, "v.state === 'idle'", UTTERANCE_MS)
    assert figures(page).last_error is None


def test_blocked_microphone_is_explained(page: Page, base_url: str) -> None:
    page.add_init_script(
        """navigator.mediaDevices.getUserMedia =
             () => Promise.reject(new DOMException('no', 'NotAllowedError'))"""
    )
    open_page(page, base_url)
    page.locator("#mic").click()
    alert = page.get_by_role("alert").filter(has_text="Allow the microphone")
    alert.wait_for()


def upload(page: Page, photo: Path) -> None:
    """Choose a photo and agree."""
    page.set_input_files("#photo-input", photo)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Add portrait")).to_be_disabled()
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Add portrait").click()


def test_uploaded_portrait_comes_alive_and_can_be_deleted(
    page: Page, base_url: str, a_photo: Path
) -> None:
    open_page(page, base_url)
    upload(page, a_photo)
    own = page.get_by_role("button", name="my own photo", exact=True)
    own.wait_for(timeout=READY_MS)
    wait_until(page, "v.state === 'idle'")
    shown = figures(page).shown
    wait_until(page, f"v.stats.framesShown > {shown + 20}")
    assert own.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Delete my own photo").click()
    own.wait_for(state="detached", timeout=READY_MS)


def test_photo_stays_here_without_consent(page: Page, base_url: str, a_photo: Path) -> None:
    open_page(page, base_url)
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    portraits = page.locator(".tile").count()
    page.set_input_files("#photo-input", a_photo)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert "POST" not in sent
    assert page.locator(".tile").count() == portraits


def test_picture_without_a_face_is_refused_in_plain_words(
    page: Page, base_url: str, tmp_path: Path
) -> None:
    open_page(page, base_url)
    portraits = page.locator(".tile").count()
    ramp = np.linspace(0, 255, 400, dtype=np.uint8)
    Image.fromarray(np.tile(ramp, (400, 1))).save(tmp_path / "wall.png")
    upload(page, tmp_path / "wall.png")
    alert = page.get_by_role("alert").filter(has_text="face")
    alert.wait_for(timeout=READY_MS)
    assert page.locator(".tile").count() == portraits
    assert figures(page).state == "idle"
