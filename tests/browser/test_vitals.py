"""The live graph: the figures that it shows are the session's, and its lines are where they say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from page_driver import POLL_MS, open_page, speak_file, wait_until
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = ["First frame", "Round trip", "Frame rate", "Lip sync", "Buffer", "Dropped"]
# Of one vital: its text, the session's own figures at that moment, the columns that have a line, of
# how many, and how high the dot of its newest value is: 0 bottom to 1 top.
READ = """(name) => {
  const vital = [...document.querySelectorAll('.vital')].find(
    (found) => found.querySelector('.vital-label').textContent === name);
  const graph = vital.querySelector('canvas');
  const { width, height } = graph;
  const { data } = graph.getContext('2d').getImageData(0, 0, width, height);
  const opaque = (x, y) => data[(y * width + x) * 4 + 3] > 160;
  let columns = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) if (opaque(x, y)) { columns += 1; break; }
  }
  const ratio = window.devicePixelRatio;
  const dot = [];
  for (let x = Math.round(width - 3 * ratio); x < width - ratio; x++) {
    for (let y = 0; y < height; y++) if (opaque(x, y)) dot.push(y);
  }
  const middle = dot.length ? (Math.min(...dot) + Math.max(...dot) + 1) / 2 : null;
  const stats = window.__visavis.stats;
  return {
    text: vital.querySelector('b').textContent, columns, width, stats,
    place: middle && 1 - (middle / ratio - 2) / (height / ratio - 4),
  };
}"""

# The same as soon as the page has taken its next sample: in the same task, so that no frame can be
# shown between what the page wrote and what is read of the session.
READ_SAMPLE = f"""(name) => new Promise((resolve) => {{
  const vital = [...document.querySelectorAll('.vital')].find(
    (found) => found.querySelector('.vital-label').textContent === name);
  const observer = new MutationObserver(() => {{
    observer.disconnect();
    resolve(({READ})(name));
  }});
  observer.observe(vital.querySelector('b'), {{ childList: true }});
}})"""


def read(page: Page, name: str) -> dict[str, Any]:
    """One vital."""
    found: dict[str, Any] = page.evaluate(READ, name)
    return found


def read_sample(page: Page, name: str) -> dict[str, Any]:
    """One vital, and the session's figures of which its newest sample was taken."""
    found: dict[str, Any] = page.evaluate(READ_SAMPLE, name)
    return found


def nearest(value: float) -> int:
    """Rounded as the page does it, halves upwards."""
    return math.floor(value + 0.5)


def test_graph_shows_the_sessions_figures(page: Page, light_url: str, speech_wav: Path) -> None:
    open_page(page, light_url)
    assert page.locator(".vital-label").all_inner_texts() == NAMES
    before = read(page, "First frame")
    assert (before["text"], before["columns"]) == ("–", 0)

    speak_file(page, speech_wav)
    wait_until(page, "v.state === 'idle'")
    first = read(page, "First frame")
    value = first["stats"]["firstFrameMs"]
    assert first["text"] == str(nearest(value))
    # One utterance is one dot, on a scale of a second or of the value.
    assert first["place"] == pytest.approx(value / max(1_000, value), abs=0.1)

    for name, figure in {"Lip sync": "skewP95Ms", "Dropped": "framesDropped"}.items():
        seen = read_sample(page, name)
        assert int(seen["text"]) == nearest(seen["stats"][figure])
        assert seen["columns"] > 3
    # Frames go on, and so does the line, up to half a minute.
    rate = read(page, "Frame rate")
    wanted = min(rate["columns"] + 4, math.floor(0.9 * rate["width"]))
    page.wait_for_function(
        f"(wanted) => ({READ})('Frame rate').columns >= wanted", arg=wanted, polling=POLL_MS
    )
    assert 0 < int(read(page, "Frame rate")["text"]) <= 35
    # The scale is stretched to the largest value of the half minute, so that none is off the graph.
    for name in NAMES:
        place = read(page, name)["place"]
        assert place is None or -0.1 <= place <= 1.1
