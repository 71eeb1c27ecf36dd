"""The trained model behind the socket: a face that lives, talks, is interrupted and goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from live_server import GALLERY_ID, LiveServer, client_of, make_config, noise, running
from PIL import Image

from visavis.server.conformance.address import socket_url
from visavis.server.conformance.peer import Target
from visavis.server.conformance.runner import run_check, select


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(make_config(tmp_path_factory.mktemp("embedded"))) as server:
        yield server


async def test_an_utterance_comes_back_whole_with_a_moving_face(embedded: LiveServer) -> None:
    pcm = noise(24_000 * 2 + 77)
    async with client_of(embedded) as client:
        await client.configure(input_audio={"format": "pcm16", "rate": 24_000})
        await client.send_audio(pcm)
        await client.send("input_audio_buffer.commit")
        done = await client.until("response.done", timeout_s=120)
    frames = client.speech()
    assert done["status"] == "completed"
    assert b"".join(frame.audio for frame in frames) == pcm
    assert len(frames) == 51
    # A machine that is busy with something else leaves late pictures out, never sound.
    shown = [f.video for f in frames if f.video]
    pictures = [np.asarray(Image.open(io.BytesIO(video))).astype(int) for video in shown]
    assert len(pictures) > 10
    assert pictures[0].shape == (256, 256, 3)
    assert max(np.abs(p - pictures[0]).max() for p in pictures[1:]) > 8


async def test_barge_in_and_the_next_utterance(embedded: LiveServer) -> None:
    pcm = noise(9_000, seed=2)
    async with client_of(embedded) as client:
        await client.configure(output={"video": "h264"})
        await client.send_audio(noise(64_000))
        await client.send("input_audio_buffer.commit")
        await client.until_media(speech=True, timeout_s=120)
        await client.send("response.cancel")
        await client.until("output.cleared")
        await client.send_audio(pcm)
        await client.send("input_audio_buffer.commit")
        await client.until("response.done")
        done = await client.until("response.done", timeout_s=120)
    assert [e["status"] for e in client.of_type("response.done")] == ["cancelled", "completed"]
    assert b"".join(f.audio for f in client.speech(done["response_index"])) == pcm
    assert all(f.video for f in client.media)


# Those checks of the kit that a model could break: what it makes and when, and where it goes on.
MODEL_CHECKS = (
    "media.h264",
    "response.audio",
    "response.queue",
    "cancel.speaking",
    "cancel.again",
    "resume.continues",
)


@pytest.mark.parametrize("name", MODEL_CHECKS)
async def test_the_trained_model_keeps_the_protocol(embedded: LiveServer, name: str) -> None:
    (check,) = select(name)
    target = Target(url=socket_url(embedded.ws), avatar_id=GALLERY_ID, timeout_s=120.0)
    result = await run_check(check, target)
    assert result.outcome == "passed", result
