"""Loading by name, preparing a portrait, opening sessions; errors that say what to do."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_model import TinyCodec, empty_prompt, noise, tiny_pipeline

from visavis.engine import registry
from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.avatar_engine import AvatarEngine, ChunkCost
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.model_parts import ModelParts
from visavis.engine.plan import PlanError
from visavis.engine.quantize import weight_bytes
from visavis.engine.registry import ModelSpec, UnknownModelError, load_small_dit
from visavis.engine.runtime import DeviceError
from visavis.engine.schematic import schematic_portrait
from visavis.engine.weight_memory import OffloadError, QuantizationError, WeightMemory
from visavis.engine.weights import WeightsError

SIZES = {
    name: getattr(DIT_PRESETS["test"], name) for name in DIT_PRESETS["test"].__dataclass_fields__
}


def _parts(dit: FlashTalkDiT) -> ModelParts:
    return ModelParts(dit=dit, codec=TinyCodec(), front_end=MelFrontEnd(), text=empty_prompt(dit))


def _load(
    config: DiTConfig,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> ModelParts:
    return _parts(load_small_dit(config, folder, device, dtype, memory))


TINY = ModelSpec(dit=DIT_PRESETS["test"], load=_load, weights="tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(registry.MODELS, "tiny", TINY)
    (tmp_path / "config.json").write_text(json.dumps({"dit": SIZES}))
    save_file(tiny_pipeline().model.state_dict(), tmp_path / "dit.safetensors")
    return tmp_path


def test_a_loaded_engine_talks(folder: Path) -> None:
    engine = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    avatar = engine.prepare_avatar(schematic_portrait())
    session = engine.open_session(avatar, input_rate=24_000)
    session.push_audio(noise(24_000))
    session.commit()
    frames = []
    while session.next_chunk() is not None:
        frames += session.generate()
    assert len(frames) == engine.fps == 25
    assert frames[0].pixels.shape == (*engine.frame_size, 3)
    assert avatar.warnings == ()


def test_loading_gives_the_saved_weights(folder: Path) -> None:
    loaded = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    saved = AvatarEngine(
        "tiny",
        _parts(tiny_pipeline().model),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    pictures = []
    for engine in (loaded, saved):
        session = engine.open_session(engine.prepare_avatar(schematic_portrait()), seed=4)
        pictures.append(np.stack([frame.pixels for frame in session.generate_idle()]))
    np.testing.assert_array_equal(*pictures)


def test_bfloat16_weights_give_nearly_the_same_face(folder: Path) -> None:
    pictures = []
    for dtype in ("float32", "bfloat16"):
        engine = AvatarEngine.load("tiny", weights=folder, dtype=dtype)
        session = engine.open_session(engine.prepare_avatar(schematic_portrait()))
        pictures.append(np.stack([f.pixels for f in session.generate_idle()]).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 3


def test_two_sessions_of_an_avatar_do_not_disturb_each_other(folder: Path) -> None:
    engine = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    avatar = engine.prepare_avatar(schematic_portrait())
    alone = engine.open_session(avatar)
    expected = np.stack([f.pixels for _ in range(2) for f in alone.generate_idle()])
    first, second = engine.open_session(avatar), engine.open_session(avatar, seed=1)
    mixed = []
    for _ in range(2):
        for one, other in zip(first.generate_idle(), second.generate_idle(), strict=True):
            mixed.append(one.pixels)
            assert np.any(one.pixels != other.pixels)
    np.testing.assert_array_equal(np.stack(mixed), expected)


def test_warm_up_measures_the_realtime_factor(folder: Path) -> None:
    engine = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    assert engine.chunk_realtime_factor is None
    assert engine.warm_up() > 0
    assert engine.chunk_realtime_factor is not None
    assert engine.chunk_realtime_factor > 0


def test_a_machine_that_is_too_slow_gets_fewer_steps_and_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    monkeypatch.setattr(engine, "_measure", lambda avatar: ChunkCost(engine.num_steps * 0.4, 1.0))
    with caplog.at_level(logging.WARNING):
        engine.warm_up()
    assert engine.num_steps == 2
    assert engine.chunk_realtime_factor == pytest.approx(0.8)
    assert "sessions get 2 by default" in caplog.text


@pytest.mark.parametrize(
    ("cost", "too_slow"),
    [(ChunkCost(0.5, 1.9), False), (ChunkCost(1.5, 1.9), True), (ChunkCost(9.0, 0.1), False)],
    ids=["fast", "slow", "starved"],
)
def test_a_busy_machine_is_not_taken_for_a_slow_one(cost: ChunkCost, too_slow: bool) -> None:
    assert cost.too_slow is too_slow


@pytest.mark.slow
def test_the_test_model_moves_a_real_portrait_size_face() -> None:
    engine = AvatarEngine.load("test", dtype="float32")
    session = engine.open_session(engine.prepare_avatar(schematic_portrait()))
    session.push_audio(noise(2560))
    frames = list(session.generate())
    assert len(frames) == 4
    assert frames[0].pixels.shape == (256, 256, 3) == (*engine.frame_size, 3)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="model='gpt'.*embedded.*test"):
        AvatarEngine.load("gpt")


def test_a_rate_that_is_not_served_is_refused(folder: Path) -> None:
    engine = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    avatar = engine.prepare_avatar(schematic_portrait())
    with pytest.raises(PlanError, match="input_rate=96000"):
        engine.open_session(avatar, input_rate=96_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype='float16'.*float32, bfloat16"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"num_threads": 0}, "num_threads=0.*at least 1"),
    ],
)
def test_impossible_devices_are_named(
    folder: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        AvatarEngine.load("tiny", weights=folder, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        (WeightMemory(offload=1), OffloadError, "device=cpu: the weights are in host memory"),
        (WeightMemory(quantize="fp8-dynamic"), QuantizationError, "cpu has no fp8 matrix units"),
    ],
)
def test_weights_that_cannot_be_held_so_are_never_read(
    memory: WeightMemory, error: type[Exception], message: str
) -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    with pytest.raises(error, match=message):
        AvatarEngine.load("embedded", weights="/nowhere", memory=memory)


def test_an_engine_with_eight_bit_weights_talks(folder: Path) -> None:
    pytest.importorskip("torchao", reason="the extra gpu is not installed")
    engine = AvatarEngine.load(
        "tiny", weights=folder, dtype="float32", memory=WeightMemory(quantize="int8")
    )
    plain = AvatarEngine.load("tiny", weights=folder, dtype="float32")
    assert weight_bytes(engine.pipeline.model) < 0.8 * weight_bytes(plain.pipeline.model)
    session = engine.open_session(engine.prepare_avatar(schematic_portrait()))
    assert len(list(session.generate_idle())) == 4


class TestWeights:
    def test_a_folder_that_is_not_there(self) -> None:
        with pytest.raises(WeightsError, match="weights='/nowhere'.*config.json"):
            AvatarEngine.load("embedded", weights="/nowhere")

    def test_the_environment_names_a_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VISAVIS_WEIGHTS", str(folder))
        AvatarEngine.load("tiny", dtype="float32")

    def test_the_environment_names_a_folder_of_folders(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = folder / "models" / "tiny"
        inner.mkdir(parents=True)
        for name in ("config.json", "dit.safetensors"):
            (folder / name).rename(inner / name)
        monkeypatch.setenv("VISAVIS_WEIGHTS", str(folder / "models"))
        AvatarEngine.load("tiny", dtype="float32")

    def test_without_weights_it_says_where_it_looked(self, folder: Path) -> None:
        with pytest.raises(WeightsError, match=r"model 'tiny'.*weights/tiny.*VISAVIS_WEIGHTS"):
            AvatarEngine.load("tiny")

    def test_a_damaged_config_is_named(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        with pytest.raises(WeightsError, match="config.json.*Expecting"):
            AvatarEngine.load("tiny", weights=folder)

    def test_a_config_with_a_field_nobody_knows(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"dit": {**SIZES, "wings": 2}}))
        with pytest.raises(WeightsError, match="wings"):
            AvatarEngine.load("tiny", weights=folder)

    def test_a_truncated_file_is_named(self, folder: Path) -> None:
        path = folder / "dit.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(WeightsError, match="dit.safetensors"):
            AvatarEngine.load("tiny", weights=folder)

    def test_tensors_that_do_not_fit_are_named(self, folder: Path) -> None:
        tensors = tiny_pipeline().model.state_dict()
        tensors["head.modulation"] = torch.zeros(1, 2, 3)
        tensors["extra"] = tensors.pop("blocks.0.modulation")
        save_file(tensors, folder / "dit.safetensors")
        with pytest.raises(
            WeightsError,
            match=r"missing blocks.0.modulation; surplus extra; head.modulation is \[1, 2, 3\]",
        ):
            AvatarEngine.load("tiny", weights=folder)
