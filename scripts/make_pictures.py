"""Makes the pictures of README.md: frames of gallery portraits, and the running page.

    .venv/bin/python scripts/make_pictures.py            # docs/images/frames.jpg
    .venv/bin/python scripts/make_pictures.py --page URL # docs/images/page.png of a running server

The second needs Chromium and playwright (`make test` brings both).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import frame_portrait
from visavis.training.speech.audio_files import read_flac

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLIC = REPOSITORY / "clients/web/public"
IMAGES = REPOSITORY / "docs/images"
PORTRAITS = ("clara", "samuel", "mei", "amara", "henri", "astronaut")
RATE = 16_000
FRAMES = slice(20, 90, 7)
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
)


def write_frames(path: Path) -> None:
    """Six portraits, one row each, speak the same sample."""
    engine = AvatarEngine.load("embedded")
    landmarker = FaceLandmarker()
    pcm = np.round(read_flac(PUBLIC / "samples/greeting.flac", RATE) * 32767).astype(np.int16)
    rows = []
    for number, name in enumerate(PORTRAITS):
        portrait = frame_portrait(PUBLIC / f"avatars/{name}.jpg", landmarker=landmarker)
        session = engine.open_session(engine.prepare_avatar(portrait), seed=number)
        session.push_audio(pcm[: 4 * RATE])
        session.commit()
        frames = []
        while session.next_chunk() is not None:
            frames += [frame.pixels for frame in session.generate()]
        rows.append(np.concatenate(frames[FRAMES], axis=1))
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


def write_page(url: str, path: Path) -> None:
    """The page while the second sample plays."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path="/usr/bin/chromium", args=list(CHROMIUM_FLAGS)
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.wait_for_function("window.__visavis && window.__visavis.state === 'idle'")
        page.get_by_role("button", name="The lighthouse").click()
        page.wait_for_function("__visavis.stats.framesShown > 60 && __visavis.state === 'speaking'")
        page.wait_for_timeout(3000)
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(path))
        browser.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", metavar="URL")
    arguments = parser.parse_args()
    if arguments.page:
        write_page(arguments.page, IMAGES / "page.png")
    else:
        write_frames(IMAGES / "frames.jpg")


if __name__ == "__main__":
    main()
