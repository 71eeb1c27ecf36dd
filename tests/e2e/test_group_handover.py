"""A group loses a process in the middle of a word, and another replica goes on with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from live_server import client_of, make_config, noise, running
from test_server_drain import read_to_the_end
from test_server_group import WAIT_S, GroupServer
from test_server_handover import SECRET, begin, resume

from visavis.server.model_host import load_engine

FRAME_US = 40_000


async def test_a_session_goes_on_elsewhere_while_the_group_restarts(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    pcm = noise(16_000 * 4)
    group = GroupServer(
        tmp_path / "group",
        PROCESSES="2",
        REPLICA_ID="group",
        HANDOVER_DIR=str(shared),
        RESUME_SECRET=SECRET,
    )
    alone = make_config(
        tmp_path / "alone",
        model="test",
        num_threads=1,
        num_steps=2,
        replica_id="alone",
        handover_dir=shared,
        resume_secret=SECRET,
    )
    try:
        group.start()
        with running(alone, load_engine) as other:
            async with group.client() as before:
                handle = await begin(before, pcm)
                os.kill(group.pids[1], signal.SIGKILL)
                expiring = await before.until("session.expiring", timeout_s=WAIT_S)
                closed = await read_to_the_end(before)
            async with client_of(other) as after:
                resumed = await resume(after, handle, before)
                done = await after.until("response.done", timeout_s=WAIT_S)
    finally:
        group.stop()
    assert (expiring["reason"], expiring["resumable"]) == ("engine_restarting", True)
    assert closed[0] == 1012
    assert resumed["lost_frames"] == 0
    assert (done["status"], done["sent_ms"]) == ("completed", 4000)
    frames = before.speech() + after.speech(1)
    assert b"".join(frame.audio for frame in frames) == pcm
    media = before.media + after.media
    assert [frame.pts_us for frame in media] == [i * FRAME_US for i in range(len(media))]
