"""A served page and a real Chromium for the browser tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from light_server import light_server
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 180
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


def write_speech_like(path: Path, seconds: float, rate: int = 16_000) -> Path:
    """A vowel-like buzz that opens and closes four times a second, as WAV."""
    time_s = np.arange(int(seconds * rate)) / rate
    carrier = sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 2 * time_s), 0, None)
    pcm = (carrier * envelope * 6_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


def is_ready(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/health/ready", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_ready(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not is_ready(base):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"visavis serve did not get ready; its log:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running server: VISAVIS_URL, or one started here with the embedded model."""
    given = os.environ.get("VISAVIS_URL")
    if given:
        yield given.rstrip("/")
        return
    if not (REPOSITORY / "clients/web/dist/index.html").is_file():
        pytest.fail("the page is not built: run `npm ci && npm run build` in clients/web")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    log = folder / "server.log"
    command = [sys.executable, "-m", "visavis.server.cli", "serve", "--port", str(port)]
    script = shutil.which("visavis", path=str(Path(sys.executable).parent))
    if script:
        command = [script, "serve", "--port", str(port)]
    environment = dict(
        os.environ,
        VISAVIS_DATA_DIR=str(folder / "data"),
        VISAVIS_MAX_SESSIONS="4",
        # The browser draws on the server's CPUs; pictures are counted, and keep size and rate.
        VISAVIS_DEGRADE="steps",
    )
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(base, process, log)
        yield base
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def light_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose engine only paints: what pages do to each other is theirs."""
    with light_server(tmp_path_factory.mktemp("light")) as url:
        yield url


@pytest.fixture(scope="session")
def speech_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech_like(tmp_path_factory.mktemp("speech") / "speech.wav", 4.0)


@pytest.fixture(scope="session")
def a_photo(base_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirrored copy of the gallery's first portrait, as a stranger's PNG."""
    with urllib.request.urlopen(f"{base_url}/v1/avatars") as response:
        first = json.load(response)["data"][0]
    with urllib.request.urlopen(base_url + first["image_url"]) as response:
        mirrored = ImageOps.mirror(Image.open(response).convert("RGB"))
    path = tmp_path_factory.mktemp("photo") / "my_own-photo.png"
    mirrored.save(path)
    return path


@pytest.fixture(scope="session")
def browser(speech_wav: Path) -> Iterator[Browser]:
    """Debian's Chromium; its microphone plays the speech-like recording in a loop."""
    chromium = os.environ.get("VISAVIS_CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).exists():
        pytest.skip(f"no Chromium at {chromium}; install the Debian package chromium")
    microphone = f"--use-file-for-fake-audio-capture={speech_wav}"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium, args=[*CHROMIUM_FLAGS, microphone]
        )
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh desktop page; an uncaught script error fails the test."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["microphone"]
    )
    opened = context.new_page()
    script_errors: list[str] = []
    opened.on("pageerror", lambda error: script_errors.append(str(error)))
    yield opened
    context.close()
    assert script_errors == []
