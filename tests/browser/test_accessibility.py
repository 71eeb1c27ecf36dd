"""Usable by everybody: axe-core finds nothing, the keyboard reaches all, a phone is wide enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_driver import begin_to_speak, figures, open_page, wait_until
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(__file__).resolve().parents[2] / "clients/web/node_modules/axe-core/axe.min.js"
NARROWEST = {"width": 360, "height": 740}


def violations(page: Page) -> list[dict[str, Any]]:
    """What axe-core says of the page as it is, by WCAG 2.2 AA and its best practices."""
    if not AXE.is_file():
        pytest.fail("axe-core is not installed: run `npm ci` in clients/web")
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    found: list[dict[str, Any]] = page.evaluate(
        """async () => {
          const result = await axe.run(document, {resultTypes: ['violations']});
          return result.violations.map(({id, help, nodes}) => (
            {id, help, nodes: nodes.map((node) => [node.html, node.failureSummary])}));
        }"""
    )
    return found


def test_axe_finds_nothing_while_it_lives(page: Page, base_url: str, speech_wav: Path) -> None:
    open_page(page, base_url)
    assert violations(page) == []
    begin_to_speak(page, speech_wav)
    assert violations(page) == []


def test_axe_finds_nothing_in_the_other_states(page: Page, base_url: str, a_photo: Path) -> None:
    open_page(page, base_url)
    page.get_by_role("tab", name="Typed text").click()
    assert violations(page) == []
    page.set_input_files("#photo-input", a_photo)
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []


def test_axe_finds_nothing_in_trouble(page: Page, base_url: str) -> None:
    page.route("**/v1/avatars", lambda route: route.abort())
    page.goto(base_url)
    page.get_by_text("The server does not answer").wait_for()
    assert violations(page) == []


def scroll_width(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def test_phone_width_needs_no_sideways_scrolling(
    page: Page, base_url: str, a_photo: Path, speech_wav: Path
) -> None:
    page.set_viewport_size({"width": NARROWEST["width"], "height": NARROWEST["height"]})
    open_page(page, base_url)
    assert scroll_width(page) <= NARROWEST["width"]
    begin_to_speak(page, speech_wav)
    assert scroll_width(page) <= NARROWEST["width"]
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Typed text").click()
    assert scroll_width(page) <= NARROWEST["width"]
    page.set_input_files("#photo-input", a_photo)
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= NARROWEST["width"]


def test_keyboard_alone_is_enough(page: Page, base_url: str) -> None:
    open_page(page, base_url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the portrait")).to_be_focused()
    page.keyboard.press("Enter")
    # From the portrait the space bar talks.
    page.keyboard.down("Space")
    wait_until(page, "v.state === 'speaking'")
    page.keyboard.up("Space")
    wait_until(page, "v.utterances === 1")
    recordings = page.get_by_role("tab", name="Recordings")
    recordings.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Typed text")).to_be_focused()
    expect(page.get_by_label("Text to speak")).to_be_visible()
    expect(page.get_by_role("tabpanel", name="Recordings")).to_be_hidden()
    assert figures(page).last_error is None


def test_wish_for_less_motion_is_kept(page: Page, base_url: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_page(page, base_url)
    moving = page.evaluate(
        """() => document.getAnimations()
             .filter((a) => a.effect.getComputedTiming().duration > 1).length"""
    )
    assert moving == 0
