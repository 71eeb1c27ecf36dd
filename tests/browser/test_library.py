"""The published package as it is: no bundler, no demo page, a recording of what was seen."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from page_driver import begin_to_speak, figures, open_page, wait_until
from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WEB = Path(__file__).resolve().parents[2] / "clients/web"
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
    """An empty page of the server's origin from which the package can be imported."""
    package = WEB / "build"
    if not (package / "index.js").is_file():
        pytest.fail("the package is not built: run `npm run build` in clients/web")

    def serve(route: Route) -> None:
        route.fulfill(path=package / route.request.url.split("/package/")[1])

    page.route("**/package/**", serve)
    # A document of the server's own: Chromium keeps made-up ones from sockets of this machine.
    page.goto(f"{base_url}/health/live")
    page.evaluate("document.body.innerHTML = '<canvas id=\\'face\\'></canvas>'")
    return page


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


@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_recording_is_a_video_with_the_speech(
    page: Page, base_url: str, speech_wav: Path, tmp_path: Path, video: str
) -> None:
    open_page(page, f"{base_url}/?video={video}")
    # A recording begins with a picture that can be decoded alone, so that it starts before.
    page.get_by_role("button", name="Record a video").click()
    wait_until(page, "document.getElementById('record-text').textContent > '0:00'")
    begin_to_speak(page, speech_wav)
    wait_until(page, "v.utterances === 1")
    with page.expect_download() as download:
        page.get_by_role("button", name="Stop recording").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".mp4"
    with av.open(str(path)) as file:
        times = [float(frame.time or 0) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
        seconds = sum(1 for _ in times) / 25
        assert "visavis" in file.metadata.get("title", "")
    assert len(times) > 60
    assert np.all(np.diff(times) > 0)
    assert np.abs(sound).max() > 0.01
    assert abs(times[-1] - len(sound) / file_rate(path)) < 0.5
    assert seconds > 2
    assert figures(page).last_error is None


def file_rate(path: Path) -> int:
    with av.open(str(path)) as file:
        rate: int = file.streams.audio[0].rate
        return rate


def corner(path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Where the last picture of a video has its watermark, if it has one."""
    with av.open(str(path)) as file:
        *_, last = file.decode(video=0)
    picture = last.to_ndarray(format="rgb24")
    height, width, _ = picture.shape
    return picture[-height // 12 :, -width // 3 :]


def test_recording_says_that_it_is_synthetic_where_that_is_wanted(
    page: Page, base_url: str, tmp_path: Path
) -> None:
    open_page(page, base_url)
    whites = []
    for marked in (False, True):
        page.get_by_label("Write “AI-generated” on recordings").set_checked(marked)
        page.get_by_role("button", name="Record a video").click()
        wait_until(page, "document.getElementById('record-text').textContent > '0:00'")
        with page.expect_download() as download:
            page.get_by_role("button", name="Stop recording").click()
        path = tmp_path / f"{marked}.mp4"
        download.value.save_as(path)
        whites.append(float((corner(path) > 215).all(axis=2).mean()))
    # White words on a dark plate; the portrait itself has hardly any white there.
    assert whites[1] > whites[0] + 0.03
