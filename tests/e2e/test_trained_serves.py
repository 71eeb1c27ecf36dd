"""From a training run through the export to a frame that a live server sends."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live_server import client_of, make_config, noise, running
from PIL import Image

from visavis.engine import registry
from visavis.engine.audio.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.dit.checkpoint import ORIGINAL_INDEX
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.flashtalk_14b import load_flashtalk_14b
from visavis.engine.weights import DIT_FILE, find_weights
from visavis.server.config import ServerConfig
from visavis.server.model_host import load_engine
from visavis.training import export_dit, recipes
from visavis.training.export_dit import Layout
from visavis.training.parallel import Workers
from visavis.training.recipes import MODELS, smoke_teacher
from visavis.training.sharding import ShardedWorkers, ShardingPlan
from visavis.training.speech.visemes import MOUTH_CONTROLS
from visavis.training.train_speech_encoder import write_speech_encoder
from visavis.training.train_student import EnergyRecipe, StudentRun
from visavis.training.train_teacher import TeacherRun

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "engine"))
import tiny_released


def randomized(model: FlashTalkDiT) -> FlashTalkDiT:
    """Weights without the zeros of a fresh model, so that every path reaches the picture."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


async def first_frame(config: ServerConfig, trained: FlashTalkDiT, **session: Any) -> Image.Image:
    """The first frame of speech of a server whose transformer is the trained one."""
    engines: list[AvatarEngine] = []

    def load(settings: ServerConfig) -> AvatarEngine:
        engines.append(load_engine(settings))
        return engines[-1]

    with running(config, load) as server:
        served = dict(engines[0].pipeline.model.named_parameters())
        for name, parameter in trained.named_parameters():
            expected = parameter.to(torch.bfloat16).float()
            assert torch.equal(served[name].float().to(torch.bfloat16).float(), expected), name
        async with client_of(server) as client:
            await client.configure(input_audio={"format": "pcm16", "rate": 16_000}, **session)
            await client.send_audio(noise(8_000))
            await client.send("input_audio_buffer.commit")
            frame = await client.until_media(speech=True, timeout_s=120)
    return Image.open(io.BytesIO(frame.video))


@pytest.mark.parametrize("layout", ["own", "original"])
async def test_an_exported_embedded_run_is_served(layout: Layout, tmp_path: Path) -> None:
    recipe = replace(EnergyRecipe(), model="smoke")
    run = StudentRun(recipe, randomized(FlashTalkDiT(MODELS["smoke"])), Workers())
    run.save(tmp_path / "student")
    encoder = SpeechEncoder(SpeechEncoderConfig(outputs=len(MOUTH_CONTROLS)))
    write_speech_encoder(encoder, tmp_path / "speech_encoder")
    weights = tmp_path / "weights"
    export_dit.main(
        source=tmp_path / "student",
        encoder=tmp_path / "speech_encoder",
        codec=find_weights("embedded"),
        out=weights,
        layout=layout,
    )
    assert (weights / (DIT_FILE if layout == "own" else ORIGINAL_INDEX)).is_file()
    config = make_config(tmp_path / "server", model="embedded", weights=weights)
    frame = await first_frame(config, run.averaged())
    assert frame.size == (256, 256)


async def test_an_exported_large_run_is_served_from_the_released_layout(
    fixtures_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released folder at a thousandth of its size; the run's pieces replace its transformer."""
    sizes = tiny_released.encoder_sizes(fixtures_dir)
    dit = tiny_released.dit_config(fixtures_dir, sizes)
    weights = tmp_path / "weights"
    weights.mkdir()
    tiny_released.write_released(fixtures_dir, weights, FlashTalkDiT(dit))
    monkeypatch.setitem(recipes.MODELS, "tiny-14b", dit)
    with ShardedWorkers(ShardingPlan(bf16=False)) as workers:
        model = workers.place(randomized(FlashTalkDiT(dit, attention_impl="plain")))
        run = TeacherRun(replace(smoke_teacher(), model="tiny-14b"), tmp_path, workers, model=model)
        run.save(tmp_path / "teacher")
        trained = run.averaged()
    export_dit.main(source=tmp_path / "teacher", out=weights)
    spec = replace(
        registry.MODELS["flashtalk-14b"],
        load=lambda _, folder, device, dtype, memory: load_flashtalk_14b(
            folder, device, dtype, memory=memory, sizes=sizes
        ),
    )
    monkeypatch.setitem(registry.MODELS, "flashtalk-14b", spec)
    config = make_config(tmp_path / "server", model="flashtalk-14b", weights=weights)
    frame = await first_frame(config, trained)
    assert frame.size == tiny_released.FRAME[::-1]


def test_an_export_that_lacks_a_part_names_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="checkpoint.pt"):
        export_dit.main(source=tmp_path / "nothing", out=tmp_path / "weights")
    teacher = FlashTalkDiT(MODELS["smoke"])
    StudentRun(replace(EnergyRecipe(), model="smoke"), teacher, Workers()).save(tmp_path / "run")
    encoder = SpeechEncoder(SpeechEncoderConfig(outputs=len(MOUTH_CONTROLS)))
    write_speech_encoder(encoder, tmp_path / "speech_encoder")
    with pytest.raises(SystemExit, match="codec=.*nowhere: no codec.json and codec.safetensors"):
        export_dit.main(
            source=tmp_path / "run",
            encoder=tmp_path / "speech_encoder",
            codec=tmp_path / "nowhere",
            out=tmp_path / "weights",
        )
    assert not (tmp_path / "weights" / DIT_FILE).exists()
