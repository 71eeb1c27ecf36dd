"""The released layout at a thousandth of its size in a group of two; a program for its test.

The leader is started with the recordings' folder, the weights' folder and a file for what it found;
it starts the follower with the same program.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from graph_stand_ins import repeat
from PIL import Image
from tiny_model import noise
from tiny_released import encoder_sizes
from torch import Tensor

from visavis.engine import avatar_engine, flashtalk_14b, registry
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.parallel import worker_group
from visavis.engine.parallel.loss import GroupLimits, GroupLostError
from visavis.engine.parallel.spawning import FollowerProcesses, Summons
from visavis.engine.parallel.worker_group import GroupOptions, WorkerGroup

NAME = "flashtalk-14b"
WAIT_S = 100.0


def register(fixtures: Path) -> None:
    """The recordings' tiny networks under the released model's name; a CPU in place of a GPU."""
    sizes = encoder_sizes(fixtures)

    def tiny(load: Callable[..., Any]) -> Callable[..., Any]:
        sized = partial(load, sizes=sizes)
        return lambda _, folder, device, dtype, memory: sized(folder, device, dtype, memory=memory)

    registry.MODELS[NAME] = replace(
        registry.MODELS[NAME],
        load=tiny(flashtalk_14b.load_flashtalk_14b),
        load_dit=tiny(flashtalk_14b.load_transformer),
        load_vae=partial(flashtalk_14b.load_vae, sizes=sizes),
    )

    def record(vae: object, *, compiled: bool = False, recorded: bool = False) -> None:
        if recorded:
            assert isinstance(vae, WanVAE)
            vae.record(repeat)

    def record_codec(codec: WanCodec, **switches: bool) -> None:
        record(codec.vae, **switches)

    worker_group.speed_up_vae = record  # type: ignore[assignment]
    avatar_engine.speed_up_codec = record_codec  # type: ignore[assignment]


def talk(engine: AvatarEngine) -> Tensor:
    """Frames of one utterance, uint8."""
    session = engine.open_session(engine.prepare_avatar(picture()), num_steps=2, seed=3)
    session.push_audio(noise(9 * 640))
    session.commit()
    return torch.stack([torch.from_numpy(frame.pixels.copy()) for frame in session.generate()])


def picture() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB")


def load(folder: Path, group: WorkerGroup | None = None) -> AvatarEngine:
    engine = AvatarEngine.load(NAME, weights=folder, dtype="float32", num_threads=1, group=group)
    codec = engine.pipeline.codec
    assert isinstance(codec, WanCodec)
    codec._decodes_early = True  # as on a GPU
    return engine


def lead(fixtures: Path, folder: Path, out: Path) -> None:
    """One process, a group, the group without its follower, the group restarted."""
    alone = load(folder)
    found: dict[str, Any] = {"alone": talk(alone)}
    arguments = [__file__, *map(str, (fixtures, folder, out))]
    processes = FollowerProcesses([sys.executable, *arguments], {})
    limits = GroupLimits(silent_s=WAIT_S, start_s=WAIT_S)
    group = WorkerGroup.start(2, processes, "cpu", GroupOptions(recorded=True), limits)
    try:
        engine = load(folder, group)
        found["group"] = talk(engine)
        codec = engine.pipeline.codec
        found["recorded"] = codec.vae.recorded
        os.kill(group.pids[1], signal.SIGKILL)
        until = time.monotonic() + WAIT_S
        while group.loss is None and time.monotonic() < until:
            time.sleep(0.01)
        found["loss"] = None if group.loss is None else (group.loss.kind, group.loss.rank)
        try:
            talk(engine)
        except GroupLostError as error:
            found["while lost"] = str(error)
        # What a session needs to leave for another replica.
        video = torch.rand(1, 3, 5, *engine.frame_size) * 2 - 1
        by_itself = codec.vae.encode(video)
        found["encode"] = (by_itself - alone.pipeline.codec.vae.encode(video)).abs().max().item()
        engine.restart_group()
        found["restarted"] = talk(engine)
        found["restarts"] = group.restarts
    finally:
        group.close()
    torch.save(found, out)


def main() -> None:
    torch.set_num_threads(1)
    fixtures, folder, out = map(Path, sys.argv[1:])
    register(fixtures)
    if Summons.of_this_process() is None:
        lead(fixtures, folder, out)
        return
    group = WorkerGroup.from_environment("cpu")
    assert group is not None
    group.follow()


if __name__ == "__main__":
    main()
