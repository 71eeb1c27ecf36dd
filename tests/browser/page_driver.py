"""What the browser tests do with the page, and what they read from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

READY_MS = 60_000
UTTERANCE_MS = 60_000
# Chromium polls conditions at every repaint by default, and a busy machine has few of those.
POLL_MS = 50


@dataclass(frozen=True, slots=True)
class Figures:
    """A snapshot of the page's own figures; `skews_ms` one for each frame of speech shown."""

    state: str
    picture: str
    last_error: str | None
    utterances: int
    sessions: int
    resumed: int
    received: int
    shown: int
    dropped: int
    voided: int
    skews_ms: list[float]
    first_frame_ms: float | None


def wait_until(page: Page, condition: str, timeout_ms: int = READY_MS) -> None:
    """Wait for a condition on `v`, the page's own figures."""
    page.wait_for_function(
        f"(() => {{ const v = window.__visavis; return v && ({condition}); }})()",
        timeout=timeout_ms,
        polling=POLL_MS,
    )


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until its face is live."""
    page.goto(url)
    wait_until(page, "v.state === 'idle'")


def figures(page: Page) -> Figures:
    """Read the page's own figures."""
    values: dict[str, Any] = page.evaluate(
        """() => {
          const v = window.__visavis, s = v.stats;
          return {
            state: v.state, picture: v.picture, last_error: v.lastError,
            utterances: v.utterances, sessions: v.sessions, resumed: v.resumed,
            received: s.framesReceived, shown: s.framesShown, dropped: s.framesDropped,
            voided: s.framesVoided, skews_ms: [...s.skewsMs], first_frame_ms: s.firstFrameMs,
          };
        }"""
    )
    return Figures(**values)


def speak_file(page: Page, wav: Path) -> None:
    """Give the page a recording and wait until its last frame was shown."""
    before = figures(page).utterances
    page.set_input_files("#audio-input", wav)
    wait_until(page, f"v.utterances > {before}", UTTERANCE_MS)


def begin_to_speak(page: Page, wav: Path) -> None:
    """Give the page a recording and wait until the face speaks it."""
    page.set_input_files("#audio-input", wav)
    wait_until(page, "v.state === 'speaking'", UTTERANCE_MS)
