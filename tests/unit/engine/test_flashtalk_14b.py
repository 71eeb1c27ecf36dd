"""The released layout, at a thousandth of its size, through the one engine path."""

import json
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity_fixtures import assert_within, randomized, read_json, tensors
from PIL import Image
from tiny_model import TinyCodec, TinyReference, noise
from tiny_released import FRAME, dit_config, encoder_sizes, write_released

from visavis.engine import flashtalk_14b, registry
from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.audio.window import audio_windows
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.wan import WanCodec
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.flashtalk_14b import (
    EncoderSizes,
    check_layout,
    load_flashtalk_14b,
    load_vae,
)
from visavis.engine.model_parts import ModelParts
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.registry import ModelSpec
from visavis.engine.tensor_files import CheckpointError
from visavis.engine.weight_memory import OffloadError, VaeFormat, WeightMemory
from visavis.engine.weights import WeightsError

CPU = torch.device("cpu")
LIMIT = 2e-5


@pytest.fixture(scope="module")
def sizes(fixtures_dir: Path) -> EncoderSizes:
    return encoder_sizes(fixtures_dir)


@pytest.fixture(scope="module")
def dit(fixtures_dir: Path, sizes: EncoderSizes) -> FlashTalkDiT:
    return randomized(FlashTalkDiT(dit_config(fixtures_dir, sizes)))


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path, dit: FlashTalkDiT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(fixtures_dir, tmp_path_factory.mktemp("released"), dit)


@pytest.fixture(scope="module")
def parts(folder: Path, sizes: EncoderSizes) -> ModelParts:
    return load_flashtalk_14b(folder, CPU, torch.float32, sizes=sizes)


@pytest.fixture
def engine(folder: Path, sizes: EncoderSizes, monkeypatch: pytest.MonkeyPatch) -> AvatarEngine:
    load = partial(load_flashtalk_14b, sizes=sizes)
    spec = ModelSpec(
        dit=DIT_PRESETS["flashtalk-14b"],
        load=lambda _, folder, device, dtype, memory: load(folder, device, dtype, memory=memory),
        weights="flashtalk-14b",
        framing="picture",
    )
    monkeypatch.setitem(registry.MODELS, "flashtalk-14b", spec)
    return AvatarEngine.load("flashtalk-14b", weights=folder, dtype="float32")


def test_the_released_model_is_in_the_registry() -> None:
    spec = registry.model_spec("flashtalk-14b")
    assert spec.dit is DIT_PRESETS["flashtalk-14b"]
    assert spec.framing == "picture"
    with pytest.raises(WeightsError, match="weights=FOLDER"):
        spec.load(spec.dit, None, CPU, torch.float32, WeightMemory())


def test_a_loaded_folder_talks(engine: AvatarEngine) -> None:
    assert engine.frame_size == FRAME
    avatar = engine.prepare_avatar(Image.radial_gradient("L").convert("RGB"))
    assert avatar.portrait.image.shape == (*FRAME, 3)
    assert "No face was found" in avatar.warnings[0]
    session = engine.open_session(avatar, num_steps=2)
    session.push_audio(noise(3 * 640))
    session.commit()
    frames = list(session.generate())
    assert [frame.last for frame in frames] == [False, False, True]
    assert all(frame.pixels.shape == (*FRAME, 3) for frame in frames)


def test_the_transformer_is_the_stored_one(parts: ModelParts, dit: FlashTalkDiT) -> None:
    loaded = parts.dit.state_dict()
    for name, tensor in dit.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    assert not any(p.requires_grad for p in parts.dit.parameters())


def test_the_prompt_reaches_the_transformer(
    parts: ModelParts, folder: Path, sizes: EncoderSizes
) -> None:
    assert parts.text is not None
    assert parts.text.shape[2] == 48
    assert parts.text.float().std() > 0.1
    pipeline = FlashTalkPipeline(parts.dit, parts.codec, parts.front_end, CPU, text=parts.text)
    picture = Image.radial_gradient("L").convert("RGB")
    reference = parts.codec.reference_from_image(picture)  # type: ignore[attr-defined]
    with_prompt = pipeline.conditions(reference).context.layers[0]
    pipeline.text = torch.zeros_like(parts.text)
    without = pipeline.conditions(reference).context.layers[0]
    assert with_prompt.text_v is not None
    assert without.text_v is not None
    assert (with_prompt.text_v - without.text_v).abs().max() > 1e-3
    short = load_flashtalk_14b(folder, CPU, torch.float32, sizes=sizes, prompt=" static  ")
    assert short.text is not None
    assert short.text.shape[1] == 2  # the word and the end token


def test_the_text_encoder_is_gone_before_the_transformer_comes(
    folder: Path, sizes: EncoderSizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders: list[weakref.ref[object]] = []
    load_text, load_dit = flashtalk_14b.load_text_encoder, flashtalk_14b.load_original

    def watched_text(*args: Any, **kwargs: Any) -> Any:
        encoder = load_text(*args, **kwargs)
        encoders.append(weakref.ref(encoder))
        return encoder

    def watched_dit(*args: Any, **kwargs: Any) -> FlashTalkDiT:
        assert [encoder() for encoder in encoders] == [None]
        return load_dit(*args, **kwargs)

    monkeypatch.setattr(flashtalk_14b, "load_text_encoder", watched_text)
    monkeypatch.setattr(flashtalk_14b, "load_original", watched_dit)
    load_flashtalk_14b(folder, CPU, torch.float32, sizes=sizes)
    assert len(encoders) == 1


def test_too_many_blocks_to_offload_are_refused_before_weights_are_read(
    folder: Path, sizes: EncoderSizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flashtalk_14b, "load_text_encoder", None)  # would fail if it were called
    with pytest.raises(OffloadError, match=r"offload=99: the model has \d+ blocks"):
        load_flashtalk_14b(folder, CPU, torch.float32, sizes=sizes, memory=WeightMemory(offload=99))


@pytest.mark.parametrize(("asked", "found"), [(None, "bfloat16"), ("float32", "float32")])
def test_the_vae_may_have_another_format_than_the_transformer(
    folder: Path, sizes: EncoderSizes, asked: VaeFormat | None, found: str
) -> None:
    memory = WeightMemory(vae_dtype=asked)
    loaded = load_flashtalk_14b(folder, CPU, torch.bfloat16, sizes=sizes, memory=memory)
    assert isinstance(loaded.codec, WanCodec)
    assert loaded.codec.vae.dtype == getattr(torch, found)
    assert loaded.dit.head.projection.weight.dtype == torch.bfloat16
    if asked == "float32":  # read as stored, not rounded on the way
        exact = load_vae(folder, CPU, torch.float32, sizes=sizes)[0].network.state_dict()
        for name, tensor in loaded.codec.vae.network.state_dict().items():
            assert torch.equal(tensor, exact[name]), name


def test_a_model_with_a_text_branch_wants_a_prompt() -> None:
    model = FlashTalkDiT(DIT_PRESETS["test"])
    pipeline = FlashTalkPipeline(model, TinyCodec(), MelFrontEnd(), CPU)
    with pytest.raises(ValueError, match="text: this model needs it"):
        pipeline.conditions(TinyReference(90.0))


def test_the_default_prompt_asks_for_a_static_background() -> None:
    assert "foreground" in flashtalk_14b.PROMPT
    assert "background is static" in flashtalk_14b.PROMPT


def test_parity_of_the_front_end_with_the_recorded_stream(
    parts: ModelParts, fixtures_dir: Path
) -> None:
    """Chunk after chunk from silence, as a session feeds it."""
    io = tensors(fixtures_dir, "audio_tiny.io")
    wave = (io["wave_i16"].numpy() / 32768).astype(np.float32)
    front_end, samples, reach = parts.front_end, 28 * 640, 2
    past = np.zeros(front_end.past_samples, np.float32)
    for chunk in range(4):
        new = wave[chunk * samples : (chunk + 1) * samples]
        recorded = io.get(f"stream.chunk{chunk}.windows")
        if recorded is not None:
            features = front_end.features(past, new)
            assert features.dtype == np.float32
            assert features.shape == (35, *front_end.feature_shape)
            windows = audio_windows(torch.from_numpy(features), start=reach)
            assert_within(windows[None], recorded, LIMIT)
        past = np.concatenate([past, new])[-len(past) :]


@pytest.mark.parametrize("new", [4, 12, 28])
def test_the_front_end_hears_eight_seconds_with_every_chunk_length(
    parts: ModelParts, new: int
) -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.3, 0.3, parts.front_end.past_samples + new * 640).astype(np.float32)
    past, rest = np.split(sound, [parts.front_end.past_samples])
    features = parts.front_end.features(past, rest)
    assert features.shape == (7 + new, 3, 48)
    forgotten = past.copy()
    forgotten[: len(sound) - 128_000] = 1.0
    np.testing.assert_array_equal(parts.front_end.features(forgotten, rest), features)


class TestLayout:
    NAMES = (
        "config.json",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "Wan2.1_VAE.pth",
        "chinese-wav2vec2-base/config.json",
        "chinese-wav2vec2-base/model.safetensors",
    )

    @pytest.fixture
    def layout(self, tmp_path: Path) -> Path:
        shards = {"a": self.NAMES[1].replace("00002-of", "00001-of"), "b": self.NAMES[1]}
        for name in (*self.NAMES, shards["a"]):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": shards}))
        return tmp_path

    def test_a_whole_folder_passes(self, layout: Path) -> None:
        check_layout(layout)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_missing_file_is_named(self, layout: Path, name: str) -> None:
        (layout / name).unlink()
        with pytest.raises(WeightsError, match=f"missing.*{name}"):
            check_layout(layout)

    def test_of_an_empty_folder_every_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError) as caught:
            AvatarEngine.load("flashtalk-14b", weights=tmp_path, dtype="float32")
        expected = {*self.NAMES, "diffusion_pytorch_model.safetensors.index.json"}
        expected.remove(self.NAMES[1])
        assert all(name in str(caught.value) for name in expected)

    def test_a_single_file_may_stand_for_the_shards(self, layout: Path) -> None:
        (layout / "diffusion_pytorch_model.safetensors.index.json").unlink()
        (layout / "diffusion_pytorch_model.safetensors").touch()
        check_layout(layout)

    def test_a_damaged_index_is_named(self, layout: Path) -> None:
        (layout / "diffusion_pytorch_model.safetensors.index.json").write_text("[]")
        with pytest.raises(WeightsError, match=r"index\.json: not an index"):
            check_layout(layout)


def test_a_config_of_another_size_is_refused(
    folder: Path, sizes: EncoderSizes, fixtures_dir: Path
) -> None:
    config = read_json(fixtures_dir, "dit_tiny.config")
    try:
        (folder / "config.json").write_text(json.dumps(config | {"ffn_dim": 512}))
        with pytest.raises(CheckpointError, match="needs"):
            load_flashtalk_14b(folder, CPU, torch.float32, sizes=sizes)
    finally:
        (folder / "config.json").write_text(json.dumps(config))
