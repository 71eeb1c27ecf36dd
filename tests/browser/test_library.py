"""The published package as it is: no bundler, no demo page."""

from __future__ import annotations

import pytest
from package_page import open_package
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CALL = """async ([url, avatar]) => {
  const { connect, AvatarError, NotFoundError } = await import('/package/index.js');
  const canvas = document.getElementById('face');
  const session = connect({ url, avatar, canvas, sampleRate: 16000 });
  const finished = new Promise((resolve) => session.on('finished', resolve));
  try { await session.ready; } catch (error) {
    await session.close();
    return { refused: error instanceof NotFoundError && error instanceof AvatarError,
             code: error.code, remedy: error.remedy };
  }
  await session.unlock();
  const tone = Float32Array.from({ length: 16000 }, (_, i) => 0.3 * Math.sin(i / 20));
  session.sendAudio(tone);
  session.commit();
  const { status } = await finished;
  const stats = session.stats();
  await session.close();
  return { status, shown: stats.framesShown, width: canvas.width, state: session.status.state };
}"""


@pytest.fixture
def caller(page: Page, base_url: str) -> Page:
    """A page that is empty but for a canvas, and can import the package."""
    return open_package(page, base_url)


def test_package_speaks_without_a_bundler(caller: Page, base_url: str) -> None:
    url = base_url.replace("http", "ws") + "/v1/realtime/avatar"
    result = caller.evaluate(CALL, [url, "clara"])
    assert result["status"] == "completed"
    assert result["shown"] >= 25
    assert result["width"] > 0
    assert result["state"] == "closed"


def test_package_rejects_with_a_typed_error(caller: Page, base_url: str) -> None:
    url = base_url.replace("http", "ws") + "/v1/realtime/avatar"
    result = caller.evaluate(CALL, [url, "nobody-here"])
    assert result["refused"] is True
    assert result["code"] == "avatar_not_found"
    assert result["remedy"]
