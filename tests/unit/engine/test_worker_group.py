"""A led transformer and a whole engine in several processes, against one process."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dit_exactness import small_inputs, small_model
from drawn_face import drawn_portrait
from gloo_group import run_group
from PIL import Image
from test_halo_vae import decoded, small_vae
from test_halo_vae import inputs as vae_inputs
from test_sequence_parallel import CONFIG

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import AudioCache, ContextCache, FlashTalkDiT
from visavis.engine.parallel.commands import Command, CommandChannel
from visavis.engine.parallel.following import Follower
from visavis.engine.parallel.halo import PictureGrid
from visavis.engine.parallel.halo_vae import HaloVAE
from visavis.engine.parallel.launch import Launch, torchrun_launch
from visavis.engine.parallel.leading import LeadingTransformer
from visavis.engine.parallel.plan import ParallelError, SequencePlan
from visavis.engine.parallel.sequence import parallelize
from visavis.engine.parallel.shared_vae import FollowingVAE, LeadingVAE
from visavis.engine.parallel.worker_group import GroupOptions, WorkerGroup
from visavis.engine.pipeline import FlashTalkPipeline


def led(rank: int) -> dict[str, Any]:
    """Two sessions at once; an error of the caller in between; then the caches go."""
    model = small_model(CONFIG, torch.float32)
    sessions = [small_inputs(CONFIG, torch.float32, text_tokens=n) for n in (3, 7)]
    with torch.inference_mode():
        alone = torch.cat([model(**inputs) for inputs in sessions])
    channel = CommandChannel(torch.device("cpu"))
    parallelize(model, SequencePlan(ulysses_degree=2))
    if rank:
        follower = Follower(model, channel)
        follower.run()
        return {"kept": follower.kept}
    leader = LeadingTransformer(model, channel)
    with torch.inference_mode():
        together = two_sessions(leader, sessions)
        gc.collect()
        leader.prepare_context(sessions[0]["text"], sessions[0]["image"])
        gc.collect()
        last = leader.prepare_audio(sessions[0]["audio_BFWLC"], latent_size=(16, 16))
    channel.close()
    channel.close()
    del last
    return {"error": (together - alone).abs().max().item()}


def two_sessions(leader: FlashTalkDiT, sessions: list[dict[str, Any]]) -> torch.Tensor:
    contexts = [leader.prepare_context(i["text"], i["image"]) for i in sessions]
    audios = [leader.prepare_audio(i["audio_BFWLC"], latent_size=(16, 16)) for i in sessions]
    joined = [
        torch.cat([i[name] for i in sessions]) for name in ("latents_BCTHW", "cond_latents_BCTHW")
    ]
    time = leader.prepare_time(torch.cat([i["timesteps_B"] for i in sessions]))
    with pytest.raises(ValueError, match="given_slots=3"):
        leader.velocity(joined[0], time, joined[1], audios[0], contexts[0], given_slots=3)
    strange = contexts[0]._replace(handles=())
    with pytest.raises(ParallelError, match="prepare_context"):
        leader.velocity(joined[0], time, joined[1], audios[0], strange)
    return leader.velocity(
        joined[0], time, joined[1], AudioCache.stack(audios), ContextCache.stack(contexts)
    )


def test_followers_take_part_in_every_call_and_forget_what_is_gone() -> None:
    leader, follower = run_group(2, led)
    assert leader["error"] < 1e-5
    assert follower["kept"] == 1  # the last audio: what went after it was never told


def serve(rank: int, options: GroupOptions) -> list[Any]:
    from visavis.engine.avatar_engine import AvatarEngine

    launch = Launch(rank=rank, world=dist.get_world_size(), local_rank=rank)
    group = WorkerGroup(launch, torch.device("cpu"), options)
    if not group.leads:
        group.follow()
        return []
    engine = AvatarEngine.load("embedded", dtype="float32", num_threads=1, group=group)
    frames = pixels(engine)
    group.close()
    return frames


def pixels(engine: Any) -> list[torch.Tensor]:
    session = engine.open_session(engine.prepare_avatar(drawn_portrait()), seed=3)
    shown = [f for _ in range(2) for f in session.generate_idle(9)]
    return [torch.from_numpy(frame.pixels.copy()) for frame in shown]


def test_engine_of_a_group_shows_the_frames_of_one_process() -> None:
    from visavis.engine.avatar_engine import AvatarEngine

    alone = pixels(AvatarEngine.load("embedded", dtype="float32"))
    frames, nothing = run_group(2, serve, GroupOptions(ring_degree=2))
    assert nothing == []
    assert len(frames) == len(alone) == 8
    for one, other in zip(frames, alone, strict=True):
        assert (one.int() - other.int()).abs().max() <= 1


def test_environment_of_torchrun_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun_launch() is None
    assert WorkerGroup.from_environment("cpu") is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun_launch() is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ParallelError, match="RANK"):
        torchrun_launch()
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert torchrun_launch() == Launch(rank=2, world=4, local_rank=2)
    assert os.environ["WORLD_SIZE"] == "4"


class Diary(CommandChannel):
    """A channel that remembers which commands went over it."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.names: list[str] = []

    def receive(self) -> Command:
        command = super().receive()
        self.names.append(command.name)
        return command


def pictures(rank: int) -> dict[str, Any]:
    """The whole decode, one that is given up, a fork and a hand-over."""
    vae = small_vae()
    latents, video = vae_inputs((5, 6))
    whole, encoded = decoded(vae, latents), vae.encode(video)
    channel = Diary()
    shared = HaloVAE(vae, PictureGrid.best((5, 6), dist.get_world_size()), dist.new_group(), root=0)
    if rank:
        following = FollowingVAE(shared)
        model = small_model(CONFIG, torch.float32)
        Follower(model, channel, following.handlers).run()
        return {"kept": len(following._decodings), "names": channel.names}
    leading = LeadingVAE(shared, channel)
    next(leading.decode(latents))
    gc.collect()
    found = {"decode": (decoded(leading, latents) - whole).abs().max().item()}
    gc.collect()
    found["encode"] = (leading.encode(video) - encoded).abs().max().item()
    channel.close()
    return found


def test_a_led_vae_decodes_latent_by_latent_and_forgets_what_is_gone() -> None:
    leader, follower = run_group(2, pictures)
    assert leader["decode"] < 1e-5
    assert leader["encode"] < 1e-5
    assert follower["kept"] == 0


def chunks(rank: int) -> dict[str, Any]:
    """One chunk twice: its motion latents decoded before it is denoised, and after."""
    channel = Diary()
    own = HaloVAE(small_vae(), PictureGrid.best((4, 2), 2), dist.new_group(), root=0)
    torch.manual_seed(0)
    config = replace(DIT_PRESETS["test"], latent_channels=16)
    model = FlashTalkDiT(config).eval()
    parallelize(model, SequencePlan(ulysses_degree=2))
    if rank:
        handlers = FollowingVAE(own).handlers
        Follower(model, channel, handlers).run()
        return {"names": channel.names}
    shown = {}
    for early in (True, False):
        codec = WanCodec(LeadingVAE(own, channel), None, (32, 16), decodes_early=early)
        pipeline = FlashTalkPipeline(
            LeadingTransformer(model, channel),
            codec,
            MelFrontEnd(),
            torch.device("cpu"),
            text=torch.ones(1, config.text_len, config.text_dim),
        )
        torch.manual_seed(1)
        picture = codec.reference_from_image(Image.linear_gradient("L").convert("RGB"))
        tokens = torch.randn(config.image_tokens, config.image_dim)
        features = torch.randn(2 + 9, config.audio_layers, config.audio_channels).numpy()
        conditions = pipeline.conditions(replace(picture, tokens=tokens))
        state = pipeline.first_state(conditions, seed=1)
        for _ in range(2):  # the second begins with two motion latents
            made = list(pipeline.generate_chunk(state, features, conditions, shown=4, num_steps=2))
            assert made[-1].next_state is not None
            state = made[-1].next_state
        shown[early] = torch.stack([frame.pose for frame in made])
    channel.close()
    return {"same": torch.equal(shown[True], shown[False])}


def test_motion_latents_are_decoded_before_a_shared_chunk_is_denoised() -> None:
    leader, follower = run_group(2, chunks)
    assert leader["same"]
    chunk = ["audio", "vae-begin", "vae-beside", "velocity", "velocity"]
    first, second = ["vae-push"] * 2, ["vae-push"]
    told = [name for name in follower["names"] if name not in ("context", "vae-encode", "stop")]
    early = chunk + first + chunk + second
    assert told[: len(early)] == early
    assert told[len(early) :] == 2 * (
        ["audio", "velocity", "velocity", "vae-begin", *3 * ["vae-push"]]
    )


def gathered(rank: int, root: int | None) -> list[tuple[int, torch.dtype]]:
    """Elements that this process takes in over a decode in bfloat16, by their dtype."""
    taken: list[tuple[int, torch.dtype]] = []

    def counted(collective: Any, parts: int) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            lists = [a for a in args if isinstance(a, list)]
            if lists and lists[0][0].ndim == parts:
                taken.append((sum(t.numel() for t in lists[0]), lists[0][0].dtype))
            collective(*args, **kwargs)

        return call

    network = small_vae().network.to(torch.bfloat16)
    grid = PictureGrid.best((4, 2), 2)
    vae = HaloVAE(WanVAE(network), grid, root=root)
    dist.all_gather, dist.gather = counted(dist.all_gather, 4), counted(dist.gather, 4)
    list(vae.decode(torch.randn(1, 16, 2, 4, 2)))
    return taken


def test_decoded_frames_go_to_the_process_that_serves_alone() -> None:
    frames = [1 * 3 * 32 * 16, 4 * 3 * 32 * 16]
    leader, follower = run_group(2, gathered, 0)
    assert leader == [(count, torch.bfloat16) for count in frames]
    assert follower == []
