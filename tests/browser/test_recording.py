"""Recording what was seen and heard, on machines and servers that are too slow as well."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest
from lowered_size import SOCKET, LoweredSize
from page_driver import begin_to_speak, figures, open_page, wait_until
from playwright.sync_api import Page, WebSocketRoute, expect

from visavis.server.protocol import Flag
from visavis.server.provenance import SOURCE_TYPE

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Seconds of the running recording; below zero where none runs, or none of its pictures came yet.
RECORDED_S = "document.getElementById('record-text').textContent.split(':').pop() - 0.5"

# Brightness, 0 to 255, of the end of the recording that was just saved, as the browser plays it.
LAST_PICTURE_IN_A_PLAYER = """async () => {
  const video = document.createElement('video');
  video.src = document.querySelector('.toast a').href;
  await new Promise((resolve, reject) => {
    video.onloadedmetadata = resolve;
    video.onerror = () => reject(new Error(video.error.message));
  });
  video.currentTime = video.duration - 0.05;
  await new Promise((resolve, reject) => {
    video.onseeked = resolve;
    video.onerror = () => reject(new Error(video.error.message));
  });
  const context = new OffscreenCanvas(32, 32).getContext('2d');
  context.drawImage(video, 0, 0, 32, 32);
  const { data } = context.getImageData(0, 0, 32, 32);
  return data.filter((_, i) => i % 4 < 3).reduce((sum, value) => sum + value) / (3 * 32 * 32);
}"""


def recorded_s(page: Page) -> float:
    """Length of the recording that runs."""
    return float(page.evaluate(RECORDED_S))


def record_a_second(page: Page) -> None:
    """Start a recording and wait until a second of it is there: it begins with a keyframe."""
    page.get_by_role("button", name="Record a video").click()
    wait_until(page, f"{RECORDED_S} > 0")


@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_recording_is_a_video_with_the_speech(
    page: Page, base_url: str, speech_wav: Path, tmp_path: Path, video: str
) -> None:
    open_page(page, f"{base_url}/?video={video}")
    # A recording begins with a picture that can be decoded alone, so that it starts before.
    record_a_second(page)
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
        facts = json.loads(file.metadata["comment"])
    assert facts.pop("created").endswith("+00:00")
    portrait = page.request.get(f"{base_url}/v1/avatars").json()["data"][0]
    assert facts == {
        "synthetic": True,
        "digitalSourceType": SOURCE_TYPE,
        "software": f"visavis {version('visavis')}",
        "model": page.request.get(f"{base_url}/v1/models").json()["data"][0]["id"],
        **({} if portrait["consent"] is None else {"consent": portrait["consent"]}),
    }
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
        record_a_second(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Stop recording").click()
        path = tmp_path / f"{marked}.mp4"
        download.value.save_as(path)
        whites.append(float((corner(path) > 215).all(axis=2).mean()))
    # White words on a dark plate; the portrait itself has hardly any white there.
    assert whites[1] > whites[0] + 0.03


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_recording_goes_on_when_a_busy_server_lowers_the_size(
    page: Page, base_url: str, tmp_path: Path, video: str, marked: bool
) -> None:
    size = LoweredSize(page)
    open_page(page, f"{base_url}/?video={video}")
    width = page.evaluate("document.getElementById('portrait-live').width")
    page.get_by_label("Write “AI-generated” on recordings").set_checked(marked)
    record_a_second(page)
    size.lower()
    wait_until(page, f"document.getElementById('portrait-live').width < {width}")
    wait_until(page, f"{RECORDED_S} > {recorded_s(page) + 1}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Stop recording").click()
    path = tmp_path / "recording.mp4"
    download.value.save_as(path)
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert pictures[0].shape[1] == width
    # Smaller pictures are scaled, but H.264 that is only copied stays as it came.
    assert pictures[-1].shape[1] == (width // 2 if video == "h264" and not marked else width)
    assert all(20 < picture.mean() < 235 for picture in (pictures[0], pictures[-1]))
    assert 20 < page.evaluate(LAST_PICTURE_IN_A_PLAYER) < 235


def test_stopping_before_the_first_picture_is_explained(page: Page, base_url: str) -> None:
    """A recording of H.264 begins with a keyframe; here none ever comes."""

    def without_keyframes(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        seen = 0

        def on_message(message: str | bytes) -> None:
            nonlocal seen
            if isinstance(message, bytes):
                seen += 1
                unmarked = bytes([message[0], message[1] & ~Flag.KEYFRAME, *message[2:]])
                message = message if seen < 10 else unmarked
            route.send(message)

        server.on_message(on_message)

    page.route_web_socket(SOCKET, without_keyframes)
    open_page(page, base_url)
    wait_until(page, "v.stats.framesShown > 10")
    page.get_by_role("button", name="Record a video").click()
    page.get_by_role("button", name="Stop recording").click()
    page.get_by_role("alert").filter(has_text="begins with").wait_for()
    expect(page.get_by_role("button", name="Record a video")).to_be_enabled()


def test_failure_while_recording_is_said_at_once(page: Page, base_url: str) -> None:
    open_page(page, f"{base_url}/?video=jpeg")
    record_a_second(page)
    page.evaluate(
        "() => { VideoEncoder.prototype.encode = () => { throw new Error('no more'); }; }"
    )
    page.get_by_role("alert").filter(has_text="no more").wait_for()
    expect(page.get_by_role("button", name="Record a video")).to_be_enabled()


def test_slow_encoder_costs_pictures_and_no_more(page: Page, base_url: str, tmp_path: Path) -> None:
    """An encoder that answers three times a second; the sound is whole, the file soon there."""
    page.add_init_script(
        """const encode = VideoEncoder.prototype.encode;
           const size = Object.getOwnPropertyDescriptor(VideoEncoder.prototype, 'encodeQueueSize');
           Object.defineProperty(VideoEncoder.prototype, 'encodeQueueSize', {get() { return 4; }});
           VideoEncoder.prototype.encode = function (...given) {
             encode.apply(this, given);
             setTimeout(() => this.dispatchEvent(new Event('dequeue')), 300);
           };
           const listen = VideoEncoder.prototype.addEventListener;
           VideoEncoder.prototype.addEventListener = function (kind, listener) {
             // Only what the timer says, not what the encoder does.
             const slow = (event) => event.isTrusted || listener(event);
             listen.call(this, kind, kind === 'dequeue' ? slow : listener);
           };"""
    )
    open_page(page, f"{base_url}/?video=jpeg")
    record_a_second(page)
    wait_until(page, f"{RECORDED_S} > 5")
    with page.expect_download() as download:
        page.get_by_role("button", name="Stop recording").click()
    path = tmp_path / "recording.mp4"
    download.value.save_as(path)
    page.get_by_text("pictures are missing").wait_for()
    with av.open(str(path)) as file:
        times = [float(frame.time or 0) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    assert 8 <= len(times) < 60
    assert samples / file_rate(path) > times[-1] - 0.5
