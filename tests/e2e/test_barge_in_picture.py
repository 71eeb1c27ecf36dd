"""Barge-in as the viewer sees it: the face goes on from the picture on screen, without a jump.

From what the client says it shows, over the frame that the server goes back to, to pixels: the
trained model, portraits of the gallery, real speech.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from live_server import Client, LiveServer, Media, client_of, make_config, running
from numpy.typing import NDArray
from PIL import Image

from visavis.server import stream
from visavis.server.bench_chunks import Playout

PUBLIC = Path(__file__).parents[2] / "clients" / "web" / "public"
RATE = 16_000
FRAME_US = 40_000
# What the player has and does not show yet, at the least: so far the face has to go back.
BEHIND = 12
# Successive pictures on either side of a cut that say how much this face moves at that moment.
AROUND = 16
LARGEST_RATIO = 1.5


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine pictures would be left out; here each of them is looked at.
        patch.setattr(stream, "LATE_S", float("inf"))
        folder = tmp_path_factory.mktemp("gallery")
        with running(make_config(folder, gallery_dir=PUBLIC / "avatars")) as server:
            yield server


@pytest.fixture(scope="module")
def speech() -> bytes:
    """A recording of the page, as pcm16 at RATE."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(PUBLIC / "samples" / "lighthouse.flac")) as recording:
        blocks = [
            block.to_ndarray()[0]
            for frame in recording.decode(audio=0)
            for block in resampler.resample(frame)
        ]
    return np.concatenate(blocks).astype("<i2").tobytes()


def seconds_of(speech: bytes, start_s: float, length_s: float) -> bytes:
    return speech[2 * round(start_s * RATE) : 2 * round((start_s + length_s) * RATE)]


@dataclass
class Viewer:
    """A client with a player, which is never further than BEHIND frames before the last that came,
    and which tells where it is."""

    client: Client
    playout: Playout = field(default_factory=Playout)
    epoch: int = 0
    newest_us: int = 0
    arrived: int = 0

    async def read(self) -> dict[str, Any] | Media:
        item = await self.client.read()
        if isinstance(item, dict):
            if item["type"] == "output.cleared":
                self.epoch, self.arrived = item["epoch"], 0
                self.playout.restart()
        elif item.epoch == self.epoch:
            self.playout.arrive(item.pts_us / 1e6, time.monotonic())
            self.newest_us = item.pts_us
            self.arrived += 1
            if self.arrived % 8 == 0:
                await self.report()
        return item

    async def report(self) -> int:
        """Say what is on screen, if anything is yet; returns that."""
        shown_us = round(1e6 * self.playout.position_s(time.monotonic()))
        shown_us = min(shown_us, self.newest_us - BEHIND * FRAME_US)
        if self.arrived > BEHIND:
            await self.client.send("playback.update", pts_us=shown_us)
        return shown_us

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            item = await self.read()
            if isinstance(item, dict) and item["type"] == kind:
                return item

    async def frames(self, count: int, *, speech: bool) -> list[Media]:
        """The next frames of this epoch; of speech alone, if wanted."""
        found: list[Media] = []
        while len(found) < count:
            item = await self.read()
            if isinstance(item, Media) and item.epoch == self.epoch and not (speech and item.idle):
                found.append(item)
        return found

    async def say(self, pcm: bytes) -> None:
        await self.client.send_audio(pcm)
        await self.client.send("input_audio_buffer.commit")


@dataclass(frozen=True)
class Cut:
    """The change across it, that against the newest picture sent, and the median and the largest
    change around."""

    seen: float
    sent: float
    usual: float
    largest: float


def pixels(frame: Media) -> NDArray[np.int16]:
    assert frame.video, "a picture was left out"
    return np.asarray(Image.open(io.BytesIO(frame.video)).convert("RGB")).astype(np.int16)


def change(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    """Mean absolute difference, in 8-bit levels."""
    return float(np.abs(one - other).mean())


def changes(pictures: list[NDArray[np.int16]]) -> list[float]:
    return [change(a, b) for a, b in zip(pictures, pictures[1:], strict=False)]


async def barge_in(viewer: Viewer, said: bytes, then: bytes | None) -> Cut:
    """Interrupt `said` in the middle; the avatar goes on with `then`, or idles."""
    client = viewer.client
    await viewer.say(said)
    await viewer.frames(BEHIND + 2 * AROUND, speech=True)
    told_s = time.monotonic()
    told_us = await viewer.report()
    await client.send("response.cancel")
    cleared = await viewer.until("output.cleared")
    passed_us = 1e6 * (time.monotonic() - told_s)
    shown_us = cleared["shown_pts_us"]
    # The client's word counts, and the time since.
    assert told_us - 1 <= shown_us <= told_us + passed_us
    if then is not None:
        await viewer.say(then)
    new = await viewer.frames(AROUND + 1, speech=False)
    assert new[0].pts_us == cleared["from_pts_us"]
    old = [frame for frame in client.media if frame.epoch == viewer.epoch - 1]
    index = next(i for i, f in enumerate(old) if f.pts_us == shown_us // FRAME_US * FRAME_US)
    assert len(old) - 1 - index >= BEHIND / 2
    before = [pixels(frame) for frame in old[max(0, index - AROUND) : index + 1]]
    after = [pixels(frame) for frame in new]
    await client.send("response.cancel")
    await viewer.until("output.cleared")
    around = changes(before) + changes(after)
    return Cut(
        seen=change(before[-1], after[0]),
        sent=change(pixels(old[-1]), after[0]),
        usual=float(np.median(around)),
        largest=max(around),
    )


async def test_the_face_goes_on_from_the_picture_on_screen(
    gallery: LiveServer, speech: bytes
) -> None:
    cuts = []
    for portrait in ("clara", "samuel"):
        async with client_of(gallery) as client:
            output = {"video": "jpeg", "quality": 95}
            await client.configure(avatar_id=portrait, output=output)
            viewer = Viewer(client)
            for start_s, speaks_again in ((1.0, True), (3.0, False), (5.5, True)):
                then = seconds_of(speech, start_s, 1.5) if speaks_again else None
                cuts.append(await barge_in(viewer, seconds_of(speech, start_s, 2.5), then))
    ratios = [cut.seen / cut.usual for cut in cuts]
    assert np.mean(ratios) <= LARGEST_RATIO, ratios
    # A single cut may be no jump beside what the face does without one, either.
    assert all(cut.seen <= max(LARGEST_RATIO * cut.usual, cut.largest) for cut in cuts), cuts
    assert min(cut.usual for cut in cuts) > 0.2, "a face that stands still proves nothing"
    # Against the newest picture sent, which is what an engine that does not go back continues.
    assert np.mean(ratios) < np.mean([cut.sent / cut.usual for cut in cuts])
